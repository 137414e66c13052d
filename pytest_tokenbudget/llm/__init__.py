"""The fixture ``llm``: the model under test for tests of one's own."""
