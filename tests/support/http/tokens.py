"""Tokens of the shapes that issuers publish, signed with a local key, and the settings with which each is accepted."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

HOUR = 3600
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Shape:
    """What an issuer's token says, the settings for it, and who it then is."""

    claims: dict[str, Any]
    settings: dict[str, Any]
    tenant: str
    subject: str
    roles: frozenset[str] = frozenset()


def published(folder: Path) -> str:
    """The file of a key set with the public half of the key that signs here."""
    public = json.loads(RSAAlgorithm.to_jwk(_KEY.public_key()))
    file = folder / "keys.json"
    file.write_text(json.dumps({"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}), encoding="utf-8")
    return str(file)


def signed(claims: dict[str, Any], **more: Any) -> str:
    """A token with these claims, valid for an hour unless `more` says otherwise."""
    now = int(time.time())
    return jwt.encode({"iat": now, "exp": now + HOUR, **claims, **more}, _KEY, "RS256", headers={"kid": "one"})


ADMIN = frozenset({"tenant_admin"})
_TID = "9122040d-6c67-4c5b-b112-36a304b66dad"
_OID = "690222be-ff1a-4d56-abd1-7e4f7d38e474"

SHAPES = {
    # Auth0: "Access Token Profiles", "Tokens and Organizations"; custom claims are namespaced.
    "auth0": Shape(
        {
            "iss": "https://my-domain.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://api.example.com/chat", "https://my-domain.auth0.com/userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile",
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "https://example.com/roles": ["admin", "viewer"],
        },
        {
            "issuer": "https://my-domain.auth0.com/",
            "audience": "https://api.example.com/chat",
            "tenant_claim": "org_id",
            "roles_claim": "https://example.com/roles",
            "roles": {"admin": "tenant_admin"},
        },
        "org_9ybsU1dN2dKfDkBi",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        ADMIN,
    ),
    # Okta: "OpenID Connect & OAuth 2.0 API", access token of a custom authorization server; one tenant for all.
    "okta": Shape(
        {
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": "https://dev-123456.okta.com/oauth2/default",
            "aud": "api://default",
            "sub": "ann@example.com",
            "cid": "0oabcdefgh123456789",
            "uid": "00ujmyr9rkeRPSRPm0g4",
            "scp": ["openid"],
            "groups": ["Everyone", "Chat admins"],
        },
        {
            "issuer": "https://dev-123456.okta.com/oauth2/default",
            "audience": "api://default",
            "tenant": "example.com",
            "subject_claim": "uid",
            "roles_claim": "groups",
            "roles": {"Chat admins": "tenant_admin"},
        },
        "example.com",
        "00ujmyr9rkeRPSRPm0g4",
        ADMIN,
    ),
    # Clerk: "Session tokens", version 1.
    "clerk": Shape(
        {
            "azp": "https://app.example.com",
            "iss": "https://clean-mayfly-62.clerk.accounts.dev",
            "nbf": 1713158390,
            "org_id": "org_2dSlOgGAjlRiZTnPdBlEJFPGBJC",
            "org_role": "org:admin",
            "org_slug": "acme",
            "sid": "sess_2f6GDn9V0i2PGfCkFnoJNQl3WKv",
            "sub": "user_2dQlbmG5YPGbIjR3BHJ8lvzqhQz",
        },
        {
            "issuer": "https://clean-mayfly-62.clerk.accounts.dev",
            "audience": "https://app.example.com",
            "audience_claim": "azp",
            "tenant_claim": "org_id",
            "roles_claim": "org_role",
            "roles": {"org:admin": "tenant_admin"},
        },
        "org_2dSlOgGAjlRiZTnPdBlEJFPGBJC",
        "user_2dQlbmG5YPGbIjR3BHJ8lvzqhQz",
        ADMIN,
    ),
    # Clerk: "Session tokens", version 2: the organization is in `o`.
    "clerk, version 2": Shape(
        {
            "azp": "https://app.example.com",
            "iss": "https://clean-mayfly-62.clerk.accounts.dev",
            "o": {"id": "org_2dSlOgGAjlRiZTnPdBlEJFPGBJC", "rol": "admin", "slg": "acme"},
            "sid": "sess_2f6GDn9V0i2PGfCkFnoJNQl3WKv",
            "sub": "user_2dQlbmG5YPGbIjR3BHJ8lvzqhQz",
            "v": 2,
        },
        {
            "issuer": "https://clean-mayfly-62.clerk.accounts.dev",
            "audience": "https://app.example.com",
            "audience_claim": "azp",
            "tenant_claim": "o.id",
            "roles_claim": "o.rol",
            "roles": {"admin": "tenant_admin"},
        },
        "org_2dSlOgGAjlRiZTnPdBlEJFPGBJC",
        "user_2dQlbmG5YPGbIjR3BHJ8lvzqhQz",
        ADMIN,
    ),
    # Firebase: "Verify ID Tokens", with Identity Platform's tenants.
    "firebase": Shape(
        {
            "iss": "https://securetoken.google.com/my-project",
            "aud": "my-project",
            "auth_time": 1700000000,
            "user_id": "uGkTMmLGsFSXHTv7sfNcwhCzxhI2",
            "sub": "uGkTMmLGsFSXHTv7sfNcwhCzxhI2",
            "email": "ann@example.com",
            "firebase": {"identities": {}, "sign_in_provider": "password", "tenant": "acme-x1y2z"},
            "role": "tenant_admin",
        },
        {
            "issuer": "https://securetoken.google.com/my-project",
            "audience": "my-project",
            "tenant_claim": "firebase.tenant",
            "roles_claim": "role",
        },
        "acme-x1y2z",
        "uGkTMmLGsFSXHTv7sfNcwhCzxhI2",
        ADMIN,
    ),
    # Google: "OpenID Connect", an ID token's payload; `iss` may lack its scheme, `hd` is the Workspace domain.
    "google": Shape(
        {
            "iss": "accounts.google.com",
            "azp": "1234987819200.apps.googleusercontent.com",
            "aud": "1234987819200.apps.googleusercontent.com",
            "sub": "10769150350006150715113082367",
            "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
            "hd": "example.com",
            "email": "jsmith@example.com",
            "email_verified": True,
        },
        {
            "issuer": "https://accounts.google.com",
            "other_issuers": "accounts.google.com",
            "audience": "1234987819200.apps.googleusercontent.com",
            "tenant_claim": "hd",
        },
        "example.com",
        "10769150350006150715113082367",
    ),
    # Entra: "Access token claims reference", version 2.0 of a multi-tenant application, with app roles.
    "entra": Shape(
        {
            "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "iss": f"https://login.microsoftonline.com/{_TID}/v2.0",
            "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "oid": _OID.upper(),
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": _TID,
            "roles": ["Chat.Admin", "operator"],
            "ver": "2.0",
        },
        {
            "issuer": "https://login.microsoftonline.com/{tid}/v2.0",
            "audience": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "tenant_claim": "tid",
            "subject_claim": "oid",
            "roles_claim": "roles",
            "roles": {"Chat.Admin": "tenant_admin"},
        },
        _TID,
        _OID,
        ADMIN,
    ),
    # Entra: version 1.0 of the same.
    "entra, version 1": Shape(
        {
            "aud": "api://6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "iss": f"https://sts.windows.net/{_TID}/",
            "appid": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "oid": _OID,
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": _TID,
            "ver": "1.0",
        },
        {
            "issuer": "https://login.microsoftonline.com/{tid}/v2.0",
            "other_issuers": "https://sts.windows.net/{tid}/",
            "audience": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "other_audiences": "api://6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "tenant_claim": "tid",
            "subject_claim": "oid",
        },
        _TID,
        _OID,
    ),
    # Cognito: "Understanding the access token": `client_id`, and no `aud`.
    "cognito, access token": Shape(
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "device_key": "us-west-2_a1b2c3d4",
            "cognito:groups": ["chat-admins", "testers"],
            "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
            "version": 2,
            "client_id": "xxxxxxxxxxxxexample",
            "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "token_use": "access",
            "scope": "phone openid profile",
            "username": "my-test-user",
        },
        {
            "issuer": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
            "audience": "xxxxxxxxxxxxexample",
            "audience_claim": "client_id",
            "expected_claims": {"token_use": "access"},
            "tenant": "example",
            "roles_claim": "cognito:groups",
            "roles": {"chat-admins": "tenant_admin"},
        },
        "example",
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        ADMIN,
    ),
    # Cognito: "Understanding the identity (ID) token".
    "cognito, id token": Shape(
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "cognito:groups": ["test-group-a"],
            "email_verified": True,
            "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
            "cognito:username": "my-test-user",
            "custom:tenant_id": "acme",
            "aud": "xxxxxxxxxxxxexample",
            "token_use": "id",
        },
        {
            "issuer": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
            "audience": "xxxxxxxxxxxxexample",
            "expected_claims": {"token_use": "id"},
            "tenant_claim": "custom:tenant_id",
        },
        "acme",
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    ),
    # Keycloak: "Server Administration Guide", access token with the organization scope: `aud` is only `account`.
    "keycloak": Shape(
        {
            "iss": "https://sso.example.com/realms/main",
            "aud": "account",
            "sub": "f:550e8400-e29b-41d4-a716-446655440000:ann",
            "typ": "Bearer",
            "azp": "chat-frontend",
            "realm_access": {"roles": ["offline_access", "uma_authorization", "chat-admin"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "organization": ["acme"],
        },
        {
            "issuer": "https://sso.example.com/realms/main",
            "audience": "chat-frontend",
            "audience_claim": "azp",
            "tenant_claim": "organization",
            "roles_claim": "realm_access.roles",
            "roles": {"chat-admin": "tenant_admin"},
        },
        "acme",
        "f:550e8400-e29b-41d4-a716-446655440000:ann",
        ADMIN,
    ),
    # Supabase: "JWT Claims Reference", with signing keys (ES256, RS256); the tenant is in the app's own metadata.
    "supabase": Shape(
        {
            "iss": "https://abcdefghijklm.supabase.co/auth/v1",
            "aud": "authenticated",
            "sub": "123e4567-e89b-12d3-a456-426614174000",
            "role": "authenticated",
            "aal": "aal1",
            "session_id": "550e8400-e29b-41d4-a716-446655440001",
            "is_anonymous": False,
            "app_metadata": {"provider": "email", "tenant_id": "acme", "roles": ["tenant_admin", "poet"]},
        },
        {
            "issuer": "https://abcdefghijklm.supabase.co/auth/v1",
            "audience": "authenticated",
            "tenant_claim": "app_metadata.tenant_id",
            "roles_claim": "app_metadata.roles",
        },
        "acme",
        "123e4567-e89b-12d3-a456-426614174000",
        ADMIN,
    ),
}  # fmt: skip
"""By the issuer; above each is the page of its documentation that shows the shape."""
