// Who a request comes from, as edge/clients.py has it. ES5 with some of ES6: what njs 0.7 knows.

const MAX_HOPS = 16;

function parse4(text) {
    const found = /^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})$/.exec(text);
    if (!found) {
        return null;
    }
    const bytes = [];
    for (let i = 1; i < 5; i++) {
        const byte = parseInt(found[i], 10);
        if (byte > 255 || String(byte) !== found[i]) {
            return null;
        }
        bytes.push(byte);
    }
    return [bytes[0] * 256 + bytes[1], bytes[2] * 256 + bytes[3]];
}

function words(text) {
    if (text === '') {
        return [];
    }
    const parts = text.split(':');
    let found = [];
    for (let i = 0; i < parts.length; i++) {
        if (i === parts.length - 1 && parts[i].indexOf('.') >= 0) {
            const tail = parse4(parts[i]);
            if (!tail) {
                return null;
            }
            found = found.concat(tail);
        } else if (/^[0-9a-fA-F]{1,4}$/.test(parts[i])) {
            found.push(parseInt(parts[i], 16));
        } else {
            return null;
        }
    }
    return found;
}

function parse6(text) {
    if (text.indexOf(':') < 0) {
        return null;
    }
    const halves = text.split('::');
    if (halves.length > 2) {
        return null;
    }
    const left = words(halves[0]);
    if (!left) {
        return null;
    }
    if (halves.length === 1) {
        return left.length === 8 ? left : null;
    }
    const right = words(halves[1]);
    if (!right || left.length + right.length > 7) {
        return null;
    }
    let middle = [];
    while (left.length + middle.length + right.length < 8) {
        middle.push(0);
    }
    return left.concat(middle, right);
}

// An address as 2 (IPv4) or 8 (IPv6) numbers of 16 bits; IPv4 inside IPv6 as IPv4; null when it is none.
function parse(text) {
    const plain = text.split('%')[0];
    const four = parse4(plain);
    if (four) {
        return four;
    }
    const six = parse6(plain);
    if (six && six[5] === 0xffff && !six[0] && !six[1] && !six[2] && !six[3] && !six[4]) {
        return six.slice(6);
    }
    return six;
}

// As RFC 5952 has it.
function format(address) {
    if (address.length === 2) {
        return [address[0] >> 8, address[0] & 255, address[1] >> 8, address[1] & 255].join('.');
    }
    let best = -1, length = 1;
    for (let i = 0; i < 8; i++) {
        let n = 0;
        while (i + n < 8 && address[i + n] === 0) {
            n++;
        }
        if (n > length) {
            best = i;
            length = n;
        }
    }
    const hex = address.map((word) => word.toString(16));
    if (best < 0) {
        return hex.join(':');
    }
    return hex.slice(0, best).join(':') + '::' + hex.slice(best + length).join(':');
}

function within(address, network) {
    if (network.words.length !== address.length) {
        return false;
    }
    let bits = network.bits;
    for (let i = 0; i < address.length && bits > 0; i++) {
        const mask = bits >= 16 ? 0xffff : (0xffff << (16 - bits)) & 0xffff;
        if ((address[i] & mask) !== (network.words[i] & mask)) {
            return false;
        }
        bits -= 16;
    }
    return true;
}

function trusts(address) {
    for (let i = 0; address !== null && i < settings.trusted.length; i++) {
        if (within(address, settings.trusted[i])) {
            return true;
        }
    }
    return false;
}

function isLoopback(address) {
    if (address.length === 2) {
        return address[0] >> 8 === 127;
    }
    return address[7] === 1 && address.slice(0, 7).every((word) => word === 0);
}

// Whose limits count: the address, or an IPv6 address's /64.
function bucketOf(address) {
    return address.length === 2 ? format(address) : format(address.slice(0, 4).concat([0, 0, 0, 0])) + '/64';
}

function withoutPort(hop) {
    if (hop[0] === '[') {
        return hop.substring(1).split(']')[0];
    }
    const parts = hop.split(':');
    return parts.length === 2 ? parts[0] : hop;
}

// Each hop appends the address that it saw itself, so from the right the list is true up to the first address that is
// no proxy of ours; whatever stands left of it that client may have made up.
function rightmostUntrusted(forwarded, peer) {
    let found = peer;
    const hops = forwarded.length ? forwarded.join(',').split(',').slice(-MAX_HOPS) : [];
    for (let i = hops.length - 1; i >= 0; i--) {
        const address = parse(withoutPort(hops[i].trim()));
        if (!address) {
            break;
        }
        found = address;
        if (!trusts(address)) {
            break;
        }
    }
    return found;
}

// Tell who sent a request: peer is the connection's other end, the others are the values of X-Forwarded-For and -Proto.
function of(peer, forwarded, protos) {
    let address = parse(peer);
    if (!address) {
        return {address: '', bucket: '', loopback: false, scheme: settings.tls ? 'https' : ''};
    }
    let scheme = '';
    if (trusts(address)) {
        address = rightmostUntrusted(forwarded, address);
        const last = protos.length ? protos[protos.length - 1].split(',').pop().trim().toLowerCase() : '';
        scheme = last === 'http' || last === 'https' ? last : '';
    }
    return {
        address: format(address),
        bucket: bucketOf(address),
        loopback: isLoopback(address),
        scheme: scheme || (settings.tls ? 'https' : ''),
    };
}

// For the limit of connections; '' for those that are not counted.
function counted(s) {
    const address = parse(s.remoteAddress);
    if (!address || trusts(address) || (settings.exemptsLoopback && isLoopback(address))) {
        return '';
    }
    return bucketOf(address);
}

export default {of, counted};
