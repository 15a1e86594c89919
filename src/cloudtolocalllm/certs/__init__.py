"""Certbot's supervisor: gets, checks, deploys and renews the platform's certificate.

`policy` decides when, `validate` what is fit, `deploy` puts a pair in place whole, and a source (`acme`, `own`,
`local_ca`) brings it. `supervisor` joins them.
"""
