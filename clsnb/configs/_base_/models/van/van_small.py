# The old name of van_b1
_base_ = './van_b1.py'
