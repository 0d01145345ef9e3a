"Print a notebook as text, outputs left out: git's diff driver for notebooks"
import json, sys
from pathlib import Path

def nbtext(nb):
    "The cells' sources, each under a line that says what it is"
    return '\n'.join(f"# %% {c['cell_type']}\n{''.join(c['source'])}\n" for c in nb['cells'])

if __name__ == '__main__':
    print(nbtext(json.loads(Path(sys.argv[1]).read_text(encoding='utf-8'))))
