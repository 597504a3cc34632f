"""Starts real servers for tests and stops what it started; needs nothing but Python.

`kinds` says what there is, `lives` starts, kills and stops, `records` remembers between runs,
`processes` knows about process ids, `debian` and `tools` bring what is missing.
"""
