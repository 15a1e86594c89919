// A real OpenID provider (npm oidc-provider) for the tests, on loopback.
//
//   node provider.mjs '{"port": 20001, "control": 20002, "app": "http://127.0.0.1:8080", "back_channel": "http://…"}'
//
// Prints one line of JSON when it listens. Everything it keeps is in this process's memory, so a new process is a
// provider that has forgotten its sessions but not its keys' issuer. The control port, for the tests alone:
//   POST /rotate           sign with a new key; the JWK set keeps the old one
//   POST /disable?sub=bob  end everything that was granted to somebody
//   GET  /requests         how often each path of the provider was asked for
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const options = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${options.port}`;

const ACCOUNTS = {
  alice: { name: 'Alice Example', email: 'alice@example.test', email_verified: true, groups: ['admins', 'staff'] },
  bob: { name: 'Bob Example', email: 'bob@example.test', email_verified: true, groups: ['staff'] },
  mallory: { name: 'Mallory', email: 'mallory@example.test', email_verified: false, groups: [] },
};
const disabled = new Set();

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomBytes(8).toString('hex') };
}

const configuration = {
  clients: [
    {
      client_id: 'c2l',
      client_secret: 'c2l-test-secret',
      redirect_uris: [`${options.app}/api/auth/oidc/callback`],
      post_logout_redirect_uris: [`${options.app}/sign-in`],
      backchannel_logout_uri: `${options.back_channel}/api/auth/oidc/back-channel-logout`,
      backchannel_logout_session_required: true,
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
    },
  ],
  pkce: { required: () => true },
  scopes: ['openid', 'offline_access', 'profile', 'email'],
  claims: { openid: ['sub'], profile: ['name', 'groups'], email: ['email', 'email_verified'] },
  // As the standard wants it, name and e-mail are at the userinfo endpoint only; as most providers do it, they are in
  // the ID token too.
  conformIdTokenClaims: options.conform ?? false,
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true, logoutSource: showLogout },
  },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_ctx, sub) =>
    disabled.has(sub) || !ACCOUNTS[sub]
      ? undefined
      : { accountId: sub, claims: () => ({ sub, ...ACCOUNTS[sub] }) },
  loadExistingGrant: grantEverything,
  // Its own dispatcher refuses loopback addresses, where the application under test is.
  fetch: (url, { dispatcher: _, ...rest }) => globalThis.fetch(url, rest),
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  renderError: (ctx, out) => {
    ctx.type = 'text/plain';
    ctx.body = `provider error: ${out.error}: ${out.error_description}`;
  },
  ttl: { Session: 3600, Grant: 3600, Interaction: 600, AccessToken: 300, IdToken: 300, RefreshToken: 3600 },
  cookies: { keys: ['test'] },
};

/** Ours is the operator's own application: whoever signs in has agreed. */
async function grantEverything(ctx) {
  const { client, session, provider } = ctx.oidc;
  const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope('openid offline_access profile email');
  grant.addOIDCClaims(['name', 'groups', 'email', 'email_verified']);
  await grant.save();
  return grant;
}

async function showLogout(ctx, form) {
  ctx.type = 'text/html';
  ctx.body = `<!doctype html><title>Sign out</title>${form}
    <button autofocus type="submit" form="op.logoutForm" value="yes" name="logout">Sign out</button>`;
}

const LOGIN = `<!doctype html><meta charset="utf-8"><title>Provider</title><h1>Provider</h1>
  <form method="post"><input name="login" aria-label="Account" autofocus><button>Sign in</button></form>
  <form method="post"><button name="abort" value="1">Cancel</button></form>`;

let keys = [newKey()];
let provider;
let serve;

function begin() {
  provider = new Provider(issuer, { ...configuration, jwks: { keys } });
  serve = provider.callback();
}

async function bodyOf(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
    if (text.length > 10_000) throw new Error('too large');
  }
  return new URLSearchParams(text);
}

async function interact(request, response) {
  if (request.method === 'GET') {
    response.writeHead(200, { 'content-type': 'text/html' }).end(LOGIN);
    return;
  }
  const form = await bodyOf(request);
  const sub = form.get('login');
  const result = form.has('abort')
    ? { error: 'access_denied', error_description: 'the person went away' }
    : ACCOUNTS[sub] && !disabled.has(sub)
      ? { login: { accountId: sub } }
      : null;
  if (result === null) {
    response.writeHead(200, { 'content-type': 'text/html' }).end(LOGIN);
    return;
  }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const requests = {};

createServer(async (request, response) => {
  const path = request.url.split('?')[0];
  const known = path.startsWith('/interaction/') ? '/interaction' : path.slice(0, 100);
  if (known in requests || Object.keys(requests).length < 100) requests[known] = (requests[known] ?? 0) + 1;
  try {
    await (path.startsWith('/interaction/') ? interact(request, response) : serve(request, response));
  } catch (error) {
    response.writeHead(500).end(`${error.name}\n`);
  }
}).listen(options.port, '127.0.0.1', () => {
  begin();
  control.listen(options.control, '127.0.0.1', () => console.log(JSON.stringify({ issuer })));
});

const control = createServer(async (request, response) => {
  const url = new URL(request.url, issuer);
  if (request.method === 'POST' && url.pathname === '/rotate') {
    keys = [newKey(), ...keys].slice(0, 3);
    begin(); // sessions and grants stay: the adapter's storage is one for all instances
  } else if (request.method === 'POST' && url.pathname === '/disable') {
    disabled.add(url.searchParams.get('sub'));
  } else if (url.pathname !== '/requests') {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(requests));
});
