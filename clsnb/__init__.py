"Image classification in notebooks: everything MMClassification 0.25 does, on today's PyTorch"
__version__ = "0.1.0"
