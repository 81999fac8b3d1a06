"""Is this batch fit for use? Statistics of fields, expectation suites, history, and a verdict in plain words.

Great Expectations is imported only while a batch is being validated.
"""
