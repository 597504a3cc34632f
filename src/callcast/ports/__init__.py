"""Protocols at the seams and the records they speak in. No I/O happens here."""
