"""Catalogues of the labs' texts, and notebooks in other languages."""
