# Compiled code for other modules of the core; nothing here is for Python.
