"The pre-commit hook: staged notebooks are cleaned and exported, and ruff looks at the Python that is staged"
import shutil, subprocess, sys, tempfile
from pathlib import Path

def git(*args):
    "The names that git prints"
    done = subprocess.run(['git', *args, '-z'], check=True, capture_output=True, text=True)
    return [name for name in done.stdout.split('\0') if name]

def staged(suffix):
    "Staged files with an ending, without deleted ones"
    return [
        name
        for name in git('diff', '--cached', '--name-only', '--diff-filter=d')
        if name.endswith(suffix)
    ]

def clean_and_export(notebooks):
    "Clean notebooks, export their modules, and stage both"
    partly = sorted(set(notebooks) & set(git('diff', '--name-only')))
    if partly:
        sys.exit(f"These notebooks are staged in part, which cannot be cleaned: {', '.join(partly)}\n"
                 "Stage them whole, or commit with --no-verify.")
    from execnb.nbio import read_nb
    from nbdev.clean import nbdev_clean
    from nbdev.config import get_config
    from nbdev.export import nb_export
    from nbdev.processors import _default_exp
    changed = list(notebooks)
    for notebook in notebooks:
        nbdev_clean.__wrapped__(fname=notebook)
        module = _default_exp(read_nb(notebook))
        if module:
            nb_export(notebook)
            changed.append(str(get_config().lib_path/Path(*module.split('.')).with_suffix('.py')))
    subprocess.run(['git', 'add', *changed], check=True)

def check(files):
    "Stop the commit if ruff finds something in the staged text of files, which may differ from the files themselves"
    ruff = shutil.which('ruff')
    if ruff is None:
        print("ruff is not installed, so staged Python is not checked: pip install -e '.[dev]'")
        return
    with tempfile.TemporaryDirectory() as folder:
        settings = git('ls-files', 'pyproject.toml')
        subprocess.run(['git', 'checkout-index', f'--prefix={folder}/', '--', *settings, *files], check=True)
        found = subprocess.run(
            [ruff, 'check', '--quiet', '--no-cache', '--force-exclude', *files], cwd=folder
        )
    if found.returncode:
        sys.exit(
            'Correct what ruff found (in the notebook, if the file is generated), or commit with --no-verify.'
        )

def main():
    notebooks = [name for name in staged('.ipynb') if name.startswith('nbs/')]
    if notebooks: clean_and_export(notebooks)
    python = staged('.py')
    if python: check(python)

if __name__ == '__main__': main()
