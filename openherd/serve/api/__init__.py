"""The APIs: what each takes (every parameter declared as honoured or refused) and what it answers with."""
