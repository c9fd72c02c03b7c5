"""Who a client is and what he may do: certificates, tokens, roles."""
