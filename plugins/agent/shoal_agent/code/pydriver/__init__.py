"""The program that a sandbox's own python3 runs for a code context. Its modules are sent to the interpreter as text.

They import nothing but the standard library of Python 3.8 and one another, by relative imports.
"""
