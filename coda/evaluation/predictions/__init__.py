"""Tables of predictions: of fields, wells and treatments, for programs and for people."""
