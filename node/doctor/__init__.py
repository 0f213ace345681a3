"""What is wrong with a node and its machine, and what to do next: `fednode doctor`, and before there is a node
`fednode self-test`.

`finding` has the words for it, `scene` what is looked at, `machine`, `dwelling`, `link` and `network` the looking;
`checks` is the table of all checks, in their order.
"""
