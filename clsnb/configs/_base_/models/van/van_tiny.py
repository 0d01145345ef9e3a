# The old name of van_b0
_base_ = './van_b0.py'
