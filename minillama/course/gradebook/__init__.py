"""The table of marks, feedback pages and the list of look-alikes."""
