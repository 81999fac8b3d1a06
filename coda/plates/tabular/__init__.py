"""The one reader of tables that people and programs made: separator, encoding, decimal sign and units told or asked."""
