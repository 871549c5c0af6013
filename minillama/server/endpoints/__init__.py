"""Endpoints by subject. Each module has a table `ENDPOINTS`; `endpoint_table` joins the tables."""
