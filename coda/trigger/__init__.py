"""New data starts a run: events, the ledger of batch versions, submission, and the service around them."""
