"""Is this batch fit for use? Statistics of fields, expectation suites, history, and a verdict in sentences.

Great Expectations is imported only while a batch is being validated.
"""
