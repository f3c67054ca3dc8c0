"""Declarations of services: what is written in ``service.py``. No server is imported from here."""
