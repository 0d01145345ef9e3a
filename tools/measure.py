"How large, dense and branched the packages of a folder are: `python tools/measure.py FOLDER [--where]`"
import ast, io, sys, tokenize
from collections import Counter
from functools import lru_cache
from pathlib import Path

no_code = {'COMMENT', 'NL', 'NEWLINE', 'INDENT', 'DEDENT', 'ENCODING', 'ENDMARKER'}
branches = (ast.If, ast.For, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension, ast.BoolOp)
functions = (ast.FunctionDef, ast.AsyncFunctionDef)

# ---- Size and density

def docstrings(tree):
    "The docstrings, and other strings that stand alone"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node

def statements(tree):
    "Number of statements without docstrings"
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - len(list(docstrings(tree)))

def branch_points(tree):
    "Number of places where code may go one way or another"
    return sum(isinstance(node, branches) for node in ast.walk(tree))

@lru_cache(maxsize=1)
def code_tokens(text):
    "String, first and last line of each token of the code; an f-string is one token in every version of Python"
    skip = {(node.lineno, node.col_offset) for node in docstrings(ast.parse(text))}
    found, depth, first = [], 0, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith('STRING_START'):
            first = first if depth else token.start[0]
            depth += 1
        elif kind.endswith('STRING_END'):
            depth -= 1
            if depth == 0: found.append(('f-string', first, token.end[0]))
        elif depth == 0 and kind not in no_code and token.start not in skip:
            found.append((token.string, token.start[0], token.end[0]))
    return found

def code_lines(text):
    "Numbers of the lines that hold code"
    return sorted({line for _, first, last in code_tokens(text) for line in range(first, last+1)})

# ---- Complexity

def own_nodes(function):
    "The nodes of a function without those of the functions defined in it"
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, functions):
            yield child
            yield from own_nodes(child)

def decisions(node):
    "What a node adds to the cyclomatic complexity"
    if isinstance(node, ast.BoolOp): return len(node.values) - 1
    if isinstance(node, ast.comprehension): return 1 + len(node.ifs)
    return int(isinstance(node, (*branches, ast.Assert, ast.match_case)))

def complexity(function):
    "Cyclomatic complexity: the number of independent paths through a function"
    return 1 + sum(map(decisions, own_nodes(function)))

# ---- Single places

def dense_form(node):
    "Which dense form a node is, or None; unpacking one value (`n,c,h,w = x.shape`) is none, however many its names"
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        names = max(len(getattr(o, 'elts', [])) for o in node.targets)
        if names > 3: return 'tuple assignments of more than three names'
    if (
        isinstance(node, ast.IfExp)
        and any(isinstance(o, ast.IfExp) for o in (node.test, node.body, node.orelse))
    ):
        return 'conditionals inside a conditional'
    if len(getattr(node, 'generators', [])) > 1 and any(o.ifs for o in node.generators):
        return 'comprehensions with two `for`s and a condition'
    return None

def private_names(node):
    "The private names that an import takes from another module"
    if not isinstance(node, ast.ImportFrom): return []
    return [o.name for o in node.names if o.name.startswith('_') and not o.name.startswith('__')]

def is_patch(node):
    "Is it a method that is added to its class from outside, with fastcore's `patch`?"
    return (
        isinstance(node, functions)
        and any('patch' in ast.unparse(o).split('(')[0] for o in node.decorator_list)
    )

def written_lines(text):
    "Numbers of the lines that somebody wrote: `__all__` is nbdev's, which lets its first line be 130 wide"
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    generated = [node for node in assigned if getattr(node.targets[0], 'id', '') == '__all__']
    return set(code_lines(text)) - {
        line
        for node in generated
        for line in range(node.lineno, node.end_lineno+1)
    }

def places(text):
    "Line and kind of everything in a module that the house style limits"
    lines, tree = text.split('\n'), ast.parse(text)
    for line in written_lines(text):
        if len(lines[line-1]) > 120: yield line, 'lines over 120'
    for string, line, _ in code_tokens(text):
        if string == ';': yield line, '`;`'
    for node in ast.walk(tree):
        yield from ((node.lineno, 'private imports') for _ in private_names(node))
        if isinstance(node, functions) and complexity(node) > 15:
            yield node.lineno, 'functions above complexity 15'
        if is_patch(node): yield node.lineno, 'methods added with `@patch`'
        if kind := dense_form(node): yield node.lineno, kind

# ---- A whole folder

def read_modules(folder):
    "Text of every module by its path, packaged configs and nbdev's index left out"
    paths = [p.relative_to(folder) for p in sorted(Path(folder).rglob('*.py'))]
    ours = [p for p in paths if 'configs' not in p.parts and p.name != '_modidx.py']
    return {p: (Path(folder)/p).read_text(encoding='utf-8') for p in ours}

def measure(text):
    "All counts of one module"
    tree = ast.parse(text)
    complexities = [complexity(node) for node in ast.walk(tree) if isinstance(node, functions)]
    counts = Counter(kind for _, kind in places(text))
    counts['modules'] = 1
    counts['statements'] = statements(tree)
    counts['branch points'] = branch_points(tree)
    counts['lines'] = len(code_lines(text))
    counts['tokens'] = len(code_tokens(text))
    counts['functions'] = len(complexities)
    counts['functions above complexity 10'] = sum(o > 10 for o in complexities)
    return counts

def density(counts):
    "Tokens on a line of code"
    return counts['tokens']/max(counts['lines'], 1)

def measure_packages(folder):
    "Counts of each package, the largest first"
    packages = {}
    for path, text in read_modules(folder).items():
        packages.setdefault(path.parent.as_posix(), Counter()).update(measure(text))
    return dict(sorted(packages.items(), key=lambda o: -o[1]['statements']))

def duplication(texts, window=6):
    "Share of the code lines that lie in `window` lines in a row which stand somewhere else, too"
    blocks, total = {}, 0
    for i, text in enumerate(texts):
        lines, used = text.split('\n'), code_lines(text)
        total += len(used)
        for k in range(len(used)-window+1):
            block = '\n'.join(lines[n-1].strip() for n in used[k:k+window])
            blocks.setdefault(block, []).append({(i, n) for n in used[k:k+window]})
    copied = [lines for found in blocks.values() if len(found) > 1 for lines in found]
    return len(set().union(*copied))/max(total, 1)

def private_definitions(tree):
    "The private names that a module defines at its top level"
    names = set()
    for node in tree.body:
        if isinstance(node, (*functions, ast.ClassDef)): names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {
                o.id
                for o in ast.walk(node)
                if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)
            }
    return {name for name in names if name.startswith('_') and not name.endswith('_')}

def homonyms(modules):
    "Private names that several modules define, with these modules"
    homes = {}
    for path, text in modules.items():
        for name in sorted(private_definitions(ast.parse(text))):
            homes.setdefault(name, []).append(path.as_posix())
    return {name: paths for name, paths in sorted(homes.items()) if len(paths) > 1}

def print_places(folder):
    "Print file, line and kind of everything that the house style limits"
    modules = read_modules(folder)
    for path, text in modules.items():
        for line, kind in sorted(places(text)):
            print(f'{Path(folder)/path}:{line}: {kind}')
    for name, (first, *others) in homonyms(modules).items():
        print(
            f"{Path(folder)/first}: private names with several meanings: {name}, also in {', '.join(others)}"
        )

def print_packages(folder):
    "Print the size and the density of each package"
    packages = measure_packages(folder)
    packages['in all'] = sum(packages.values(), Counter())
    columns = ['statements', 'branch points', 'lines', 'tokens']
    print(''.join(f'{o:>15}' for o in [*columns, 'tokens a line']), ' package')
    for name, counts in packages.items():
        values = [f'{counts[o]:,}' for o in columns] + [f'{density(counts):.1f}']
        print(''.join(f'{o:>15}' for o in values), '', name)

if __name__ == '__main__':
    folders = [o for o in sys.argv[1:] if o != '--where']
    if len(folders) != 1: sys.exit(__doc__)
    if '--where' in sys.argv: print_places(folders[0])
    else: print_packages(folders[0])
