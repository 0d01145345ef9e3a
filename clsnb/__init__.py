"Image classification in notebooks: everything MMClassification 0.25 does, on today's PyTorch"
__version__ = "0.1.0"

import os as _os
if _os.environ.get('CLSNB_COMPAT'):  # set by clsnb.compat, for the processes that it starts
    from .compat.finder import install as _install
    _install()
