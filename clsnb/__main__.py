"`python -m clsnb VERB`, for torchrun: `torchrun --nproc-per-node 2 -m clsnb train CONFIG --launcher pytorch`"
from clsnb.cli import main

if __name__ == '__main__': main()
