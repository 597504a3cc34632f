"""The bus and what runs behind it, and the ports on asyncio."""
