"The pre-commit hook: staged notebooks are cleaned and exported, and what that changes is staged too"
import subprocess, sys
from pathlib import Path

def git(*a): return subprocess.run(['git', *a], check=True, capture_output=True, text=True).stdout.split('\n')

def main():
    staged = [f for f in git('diff', '--cached', '--name-only', '--diff-filter=d') if f.startswith('nbs/') and f.endswith('.ipynb')]
    if not staged: return
    partly = set(staged) & set(git('diff', '--name-only'))
    if partly: sys.exit(f"These notebooks are staged in part, which cannot be cleaned: {', '.join(sorted(partly))}\nStage them whole, or commit with --no-verify.")
    from nbdev.clean import nbdev_clean
    from nbdev.config import get_config
    from nbdev.export import nb_export
    from nbdev.processors import _default_exp
    from execnb.nbio import read_nb
    for f in staged:
        nbdev_clean.__wrapped__(fname=f)
        name = _default_exp(read_nb(f))
        if name:
            nb_export(f)
            git('add', str(get_config().lib_path/Path(*name.split('.')).with_suffix('.py')))
    git('add', *staged)

if __name__ == '__main__': main()
