"""Several devices and several machines: what is cut where, and how processes find and follow each other."""
