"""How the API presents itself and its objects to clients: discovery, OpenAPI, tables. Pure."""
