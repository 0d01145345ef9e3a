# The old name of van_b3
_base_ = './van_b3.py'
