"""Adaptation: the extractor continues on unlabelled plates, and every way of serving the batch is laid out.

No function here takes a mechanism of action. The heads are read for prediction only and are never trained.
"""
