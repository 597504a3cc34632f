"""``callcast demo``: a shop of five processes, broken on purpose, and an account of every order."""
