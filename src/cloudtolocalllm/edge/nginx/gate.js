// What nginx itself cannot tell of a request: the embedded edge's decisions (edge/app.py), in the same order.
//
// nginx evaluates `gate` once for each request before it looks for a location, and goes where it says: the path that
// the client sent chooses nothing by itself. ES5 with some of ES6: what njs 0.7 knows.
// `settings` is the object of settings.json (js_preload_object).
import clients from 'clients.js';
import limits from 'limits.js';

const HOST = /^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._\-]+)(?::([0-9]{1,5}))?$/;
const ORIGIN = /^([a-z][a-z0-9+.\-]*):\/\/(\[[0-9a-f:.]+\]|[a-z0-9._\-]+)(?::([1-9][0-9]{0,4}))?$/;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}$/;
const TRICK = /%(?:2e|2f|5c|[01][0-9a-f]|7f|(?![0-9a-f]{2}))|[\\\x00-\x20\x7f]|\/\/|\.\.|(?:^|\/)\.(?:\/|$)/i;
const DEFAULT_PORTS = {http: '80', https: '443'};

// njs has no garbage collector: what a request's scripts make stays until its end, which for a WebSocket is a day. So
// what every request passes makes as little as can be: loops, and no functions and arrays for one use.

function values(headers, name) {
    const found = [];
    for (let i = 0; i < headers.length; i++) {
        if (headers[i][0] === name) {
            found.push(headers[i][1]);
        }
    }
    return found;
}

function one(headers, name) {
    for (let i = 0; i < headers.length; i++) {
        if (headers[i][0] === name) {
            return headers[i][1];
        }
    }
    return '';
}

// Whether a set of `settings` has a name.
function has(set, name) {
    return set[name] === true;
}

function isOneOf(list, value) {
    for (let i = 0; i < list.length; i++) {
        if (list[i] === value) {
            return true;
        }
    }
    return false;
}

function tokens(headers, name) {
    const found = values(headers, name).join(',').toLowerCase().split(',');
    for (let i = 0; i < found.length; i++) {
        found[i] = found[i].trim();
    }
    return found;
}

// --- answers ---

function refuse(r, status, slug, detail) {
    r.variables.c2l_slug = slug;
    r.variables.c2l_detail = detail;
    if ((slug === 'overloaded' || slug === 'connection-lost') && !r.variables.c2l_retry_after) {
        r.variables.c2l_retry_after = '1';
    }
    return 'refuse/' + status;
}

// For what two parsers could read in two ways: nothing after it on this connection is believed.
function cut(r, status, detail) {
    refuse(r, status, status === 400 ? 'bad-request' : status === 501 ? 'method-not-allowed' : 'too-large', detail);
    return 'cut/' + status;
}

function quote(text) {
    return JSON.stringify(text);
}

// A problem document, spaced as contracts/problems.py does it.
function problem(r) {
    const status = parseInt(r.variables.c2l_code, 10);
    const slug = r.variables.c2l_slug || settings.byStatus[status] || 'internal';
    const title = settings.titles[slug];
    const detail = r.variables.c2l_detail || settings.details[slug] || 'The request could not be read.';
    return '{"type": ' + quote(settings.typePrefix + slug) + ', "title": ' + quote(title) + ', "status": ' + status +
        ', "detail": ' + quote(detail) + ', "error": {"message": ' + quote(title + '. ' + detail) + ', "type": ' +
        quote(slug) + ', "code": ' + quote(slug) + '}}';
}

// --- the request's head ---

function unreadable(r, headers) {
    if (headers.length > settings.maxFields) {
        return cut(r, 431, 'Expected at most ' + settings.maxFields + ' fields.');
    }
    let size = 0;
    for (let i = 0; i < headers.length; i++) {
        size += headers[i][0].length + headers[i][1].length + 4;
    }
    if (size > settings.maxHead) {
        return cut(r, 431, 'Expected a head of at most ' + settings.maxHead + ' bytes.');
    }
    if (r.variables.request_uri.length > settings.maxTarget) {
        return cut(r, 414, 'Expected a target of at most ' + settings.maxTarget + ' bytes.');
    }
    if (!has(settings.methods, r.method)) {
        return cut(r, 501, 'Expected a method that is registered.');
    }
    const host = values(headers, 'host');
    if (host.length > 1 || (host.length === 1 && !HOST.test(host[0]))) {
        return cut(r, 400, 'Expected Host to be a name or an address, with a port or without.');
    }
    const target = (r.variables.request || '').split(' ')[1] || '';
    if (target[0] !== '/') {
        const found = /^https?:\/\/([^\/]*)\//i.exec(target);
        if (!found || !host.length || found[1].toLowerCase() !== host[0].toLowerCase()) {
            return cut(r, 400, "Expected the target's authority to be the Host.");
        }
    }
    if (/[^!-"$-~]/.test(r.variables.request_uri)) {
        return cut(r, 400, 'Expected a target without a fragment, spaces and control characters.');
    }
    const expect = values(headers, 'expect');
    if (expect.length > 1 || (expect.length && expect[0].toLowerCase() !== '100-continue')) {
        return cut(r, 417, 'Expected no expectation but 100-continue.');
    }
    return '';
}

// --- where it goes ---

function startsWithAny(path, prefixes) {
    for (let i = 0; i < prefixes.length; i++) {
        if (path.startsWith(prefixes[i])) {
            return true;
        }
    }
    return false;
}

function route(path) {
    if (path === '/ws/bridge' || path === '/ws/events') {
        return 'api-websocket';
    }
    if (path === settings.tunnel) {
        return 'tunnel';
    }
    if (path === '/healthz') {
        return 'health';
    }
    if (path === '/readyz' || path.startsWith('/api/')) {
        return 'api';
    }
    if (startsWithAny(path, settings.dataPrefixes) || path === '/ollama') {
        return 'data';
    }
    if (startsWithAny(path, ['/internal/', '/ws/']) || isOneOf(['/internal', '/api', '/ws'], path)) {
        return 'nothing';
    }
    return 'static';
}

function kindOf(where, path) {
    if (where === 'api') {
        const plain = path.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
        if (startsWithAny(plain, settings.signIn) && !has(settings.notSignIn, plain.replace(/\/+$/, ''))) {
            return 'sign-in';
        }
    }
    return settings.kinds[where];
}

// --- pages of other origins ---

function isOurs(origin, host, scheme) {
    const found = ORIGIN.exec(origin);
    if (!found || !DEFAULT_PORTS[found[1]] || (scheme && found[1] !== scheme)) {
        return false;
    }
    const port = DEFAULT_PORTS[found[1]];
    const asked = HOST.exec(host.toLowerCase());
    return asked !== null && found[2] === asked[1] && (found[3] || port) === (asked[2] || port);
}

function judge(headers, scheme) {
    const sent = values(headers, 'origin');
    if (!sent.length) {
        return 'none';
    }
    if (sent.length > 1) {
        return 'foreign';
    }
    if (isOurs(sent[0], one(headers, 'host'), scheme)) {
        return 'ours';
    }
    return has(settings.corsOrigins, sent[0]) ? 'allowed' : 'foreign';
}

function preflight(r, headers) {
    const asked = values(headers, 'access-control-request-headers');
    const names = (asked[0] || '').split(',').map((name) => name.trim());
    if (asked.length === 1 && names.length <= 64 && names.every((name) => TOKEN.test(name))) {
        r.variables.c2l_allow_headers = asked[0];
    }
    return 'preflight';
}

// --- what goes on ---

// Fields as lines that follow the request's id in one proxy_set_header: nginx by itself can neither pass on all
// fields but those that Connection names (RFC 9110 §7.6.1) nor keep two of one name. Its parsers let no end of a line
// through in a value; that is looked at once more, since a second request could be hidden behind one.
function lines(r, headers, wanted) {
    const kept = [r.variables.c2l_request_id];
    for (let i = 0; i < headers.length; i++) {
        const value = headers[i][1];
        if (wanted(headers[i][0]) && value.indexOf('\r') < 0 && value.indexOf('\n') < 0) {
            kept.push('\r\n', headers[i][0], ': ', value);
        }
    }
    return kept.join('');
}

function prepare(r, where, headers, client) {
    const named = tokens(headers, 'connection');
    const passes = (name, dropped) => !has(settings.hopByHop, name) && !isOneOf(named, name) && !has(dropped, name);
    if (where === 'api' || where === 'api-websocket') {
        r.variables.c2l_address = client.address;
        r.variables.c2l_scheme = client.scheme || 'http';
        r.variables.c2l_to_api = lines(r, headers, (name) => passes(name, settings.droppedToApi));
        return;
    }
    r.variables.c2l_question = lines(r, headers, (name) => has(settings.asked, name));
    r.variables.c2l_to_proxy = lines(r, headers, (name) => passes(name, settings.droppedToProxy));
}

// Whether all of a request's content is read before its proxy is sought: see `unreached`.
function isSmall(headers) {
    const length = values(headers, 'content-length');
    return length.length ? parseInt(length[0], 10) <= settings.gathered : !values(headers, 'transfer-encoding').length;
}

// --- the gate ---

function limited(r, client, where, path) {
    if (settings.exemptsLoopback && client.loopback) {
        return '';
    }
    const kind = kindOf(where, path);
    let wait = 0;
    try {
        wait = limits.take(client.bucket, kind);
    } catch (e) {
        r.error('the limits cannot be counted: ' + e);
        return refuse(r, 503, 'overloaded', 'The server cannot take requests now; try again.');
    }
    if (!wait) {
        return '';
    }
    const rate = settings.rates[kind];
    const seconds = Math.max(1, Math.ceil(wait));
    r.variables.c2l_retry_after = String(seconds);
    r.variables.c2l_policy = '"' + kind + '";q=' + rate.count + ';w=' + rate.window;
    r.variables.c2l_limit = '"' + kind + '";r=0;t=' + seconds;
    return refuse(r, 429, 'rate-limited', 'Expected at most ' + rate.text +
        ' of such requests from one address; wait and try again.');
}

function misdirected(r, headers, path) {
    const found = HOST.exec(one(headers, 'host'));
    if (!found || parseInt(found[2] || '0', 10) > 65535 || !has(settings.hosts, found[1].toLowerCase())) {
        return refuse(r, 421, 'not-found',
            'This server does not answer to that host name; its owner can allow more of them.');
    }
    if (TRICK.test(path)) {
        return refuse(r, 400, 'bad-request',
            'Expected a path without dot segments, empty segments and encoded slashes.');
    }
    return '';
}

function isUpgrade(r, headers) {
    return r.httpVersion === '1.1' && isOneOf(tokens(headers, 'connection'), 'upgrade') &&
        one(headers, 'upgrade').toLowerCase() === 'websocket' &&
        !values(headers, 'content-length').length && !values(headers, 'transfer-encoding').length;
}

function share(r, standing, headers) {
    r.variables.c2l_vary = 'Origin';
    if (standing === 'allowed') {
        r.variables.c2l_allow_origin = one(headers, 'origin');
        r.variables.c2l_expose = settings.exposed;
        return headers.filter((field) => field[0] !== 'cookie');
    }
    return headers;
}

function decide(r) {
    let headers = r.rawHeadersIn;
    for (let i = 0; i < headers.length; i++) {
        headers[i][0] = headers[i][0].toLowerCase();
    }
    const bad = unreadable(r, headers);
    if (bad) {
        return bad;
    }
    const path = r.variables.request_uri.split('?')[0];
    const where = route(path);
    r.variables.c2l_route = where;
    const client = clients.of(settings.front ? r.variables.proxy_protocol_addr : r.variables.remote_addr,
        values(headers, 'x-forwarded-for'), values(headers, 'x-forwarded-proto'));
    const data = where === 'data';
    let standing = 'none';
    if (data || where === 'tunnel' || where === 'api' || where === 'api-websocket') {
        standing = judge(headers, client.scheme);
        if (data && settings.shares) {
            headers = share(r, standing, headers);
        }
    }
    const refused = limited(r, client, where, path) || misdirected(r, headers, path);
    if (refused) {
        return refused;
    }
    if (standing === 'foreign' || (standing === 'allowed' && !data)) {
        return refuse(r, 403, 'forbidden',
            'Expected a page of this server, or on the routes to models one of an origin that its owner allows.');
    }
    if (standing === 'allowed' && r.method === 'OPTIONS' &&
        values(headers, 'access-control-request-method').length) {
        return preflight(r, headers);
    }
    return served(r, where, headers, client, path);
}

function served(r, where, headers, client, path) {
    if (where === 'health') {
        return where;
    }
    if (where === 'static') {
        if (r.method !== 'GET' && r.method !== 'HEAD') {
            r.variables.c2l_allow = 'GET, HEAD';
            return refuse(r, 405, 'method-not-allowed', 'Expected GET or HEAD.');
        }
        r.variables.c2l_path = path;
        const host = HOST.exec(one(headers, 'host'));
        return settings.siteHost && host[1].toLowerCase() === settings.siteHost ? 'site' : 'static';
    }
    if (where === 'nothing') {
        return refuse(r, 404, 'not-found', 'This server has no such route.');
    }
    if ((where === 'tunnel' || where === 'api-websocket') && !isUpgrade(r, headers)) {
        return refuse(r, 400, 'bad-request', 'Expected a WebSocket upgrade.');
    }
    prepare(r, where, headers, client);
    if (where === 'data' && !isSmall(headers)) {
        return 'upload';
    }
    r.variables.c2l_whole = '1';
    return where;
}

function gate(r) {
    // What nginx refused while it read the head comes here on its way to its own answer.
    return r.internal ? r.uri.substring('/_c2l/'.length) : decide(r);
}

// --- what the API and the upstreams said ---

// The API's refusal (contracts/authorize.py), or that there was none that can be read.
function verdict(r) {
    const v = r.variables;
    const asked = (v.c2l_asked || '').split(/[,:] */).pop();
    if (asked === '' || asked === '502' || asked === '504') {
        return refuse(r, 503, 'overloaded', 'The API does not answer; try again.');
    }
    if (asked !== '401' && asked !== '403') {
        return refuse(r, 500, 'internal', "The API's decision could not be read.");
    }
    const slug = v.c2l_v_problem || '';
    const stated = v.c2l_v_status || '';
    if (!settings.titles[slug] || (stated && !has(settings.statuses, stated))) {
        challenge(r, asked === '401', '');
        return refuse(r, asked, asked === '401' ? 'unauthenticated' : 'forbidden', 'The API refused the request.');
    }
    const status = stated || String(settings.statusOf[slug]);
    if (/^[0-9]{1,9}$/.test(v.c2l_v_retry_after || '')) {
        v.c2l_retry_after = v.c2l_v_retry_after;
    }
    const nonce = status === '401' && /^[A-Za-z0-9_\-]{1,256}$/.test(v.c2l_v_nonce || '') ? v.c2l_v_nonce : '';
    v.c2l_nonce = nonce;
    challenge(r, status === '401', nonce);
    v.c2l_slug = slug;
    v.c2l_detail = v.c2l_v_detail || ' ';
    return 'refuse/' + status;
}

function challenge(r, wanted, nonce) {
    // auth_request itself passes the one on that the API sent.
    if (wanted && !r.variables.c2l_v_challenge) {
        r.variables.c2l_challenge = nonce ? 'DPoP error="use_dpop_nonce"' : 'Bearer realm="cloudtolocalllm"';
    }
}

function connected(r) {
    const times = (r.variables.upstream_connect_time || '-').split(/[,:] */);
    return times[times.length - 1].trim() !== '-';
}

// An upstream that failed: 502 or 504 stands in c2l_broke.
function broken(r) {
    if (!connected(r)) {
        return refuse(r, 503, 'overloaded', 'The service behind this server does not answer; try again.');
    }
    if (r.variables.c2l_broke === '504') {
        return refuse(r, 504, 'timed-out', 'The service behind this server did not answer in time.');
    }
    return refuse(r, 503, 'connection-lost', 'The service behind this server broke off; try again.');
}

// A user's proxy that failed. When it accepted no connection the API is asked once more: it may be another one by now.
// nginx reads no more of a request's content once a first upstream was tried, so this is for those whose content was
// gathered before; who uploads more is told to try again, which by then leads to the new proxy.
function unreached(r) {
    if (connected(r)) {
        return broken(r);
    }
    if (!r.variables.c2l_whole) {
        return 'renew';
    }
    return r.variables.c2l_route === 'tunnel' ? 'tunnel-again' : 'again';
}

// --- answers of upstreams ---

// nginx before 1.29 knows no answer that another one follows: it would pass on everything after the first head as it
// came, past every filter, and the home could write answers to whoever shares the client's connection.
function final(r) {
    if (r.status < 200) {
        throw new Error('expected a final status from upstream, got ' + r.status);
    }
}

// Of a 101 only the handshake passes, and the nonce for a bridge's next proof.
function switched(r) {
    delete r.headersOut['Server'];
    if (r.status !== 101) {
        final(r);
        return;
    }
    for (let name in r.headersOut) {
        const lower = name.toLowerCase();
        if (!lower.startsWith('sec-websocket-') && lower !== 'dpop-nonce' && lower !== 'upgrade') {
            delete r.headersOut[name];
        }
    }
}

export default {gate, problem, verdict, broken, unreached, final, switched};
