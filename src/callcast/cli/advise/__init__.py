"""``callcast advise``: files, URLs and the record are read here; the adviser itself is pure."""
