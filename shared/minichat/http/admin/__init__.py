"""The operator's API, under `/admin/v1`: an app of its own, which the chat API never imports."""
