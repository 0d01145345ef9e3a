# The old name of van_b2
_base_ = './van_b2.py'
