"""The API key of the server that this folder's tests share."""

KEY = "contract-test-key-0123456789"
