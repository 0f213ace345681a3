"""The web console of a node, its health endpoints and its metrics: `fednode run --http ADDR`.

Rules
1. It lives in the daemon's own event loop and asks everything of threads of its own (`desk`): no query of a page holds
   a session with a child up.
2. A page is a function from a `Visit` to a response, in a module of `pages`, which a registry finds; docs/console.md.
3. Nothing is fetched from anywhere else: the browser is told so (Content-Security-Policy), and all assets lie in
   `static`, with their hashes.
4. Who may do what is data (`roles`). Whatever is done is in `sys.audit` under the account's name.
"""
