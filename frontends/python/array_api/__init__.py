"""The functions of the array API standard (2024.12), and NumPy's and PyTorch's that people expect beside them.

A family a module. Every function is written once, over the graph's values: traced it writes graph, on arrays it
computes at once. The names are public in `graphc` (see the table there); signatures are the standard's.
"""
