"""The one reader of tables of people and programs: separator, encoding, decimal sign, units detected or asked."""
