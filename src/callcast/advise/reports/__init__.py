"""What the adviser says, for people and for programs: text, Markdown, JSON, SARIF, JUnit."""
