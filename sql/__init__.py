"""SQL files, one SELECT each; pipeline/query.py reads them."""
