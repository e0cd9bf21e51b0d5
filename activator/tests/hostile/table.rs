//! What a hostile client does, and how each of its cells ends.

pub(crate) use self::{Cell::*, Peer::*, Phase::*, Protocol::*};

/// Protocol of the hostile client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    H2c,
    TlsHttp2,
    Tunnel,
}

/// What the client is doing when it becomes hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No request, or a tunnel without bytes.
    Idle,
    /// Its request is queued.
    Parked,
    /// It sends a body.
    Uploading,
    /// It receives a response without end.
    Downloading,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    NeverSendsHead,
    SendsHeadSlowly,
    SendsBodySlowly,
    NeverReads,
    ReadsSlowly,
    HalfCloses,
    ZeroWindow,
    NoSettingsAck,
    ResetsInALoop,
    UrgentByte,
}

/// How a cell of the table ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// By this limit.
    Ends(&'static str),
    /// Nothing to test, for this reason.
    Empty(&'static str),
}

pub(crate) const PROTOCOLS: [Protocol; 4] = [Http1, H2c, TlsHttp2, Tunnel];
pub(crate) const PHASES: [Phase; 4] = [Idle, Parked, Uploading, Downloading];
pub(crate) const PEERS: [Peer; 10] = [
    NeverSendsHead,
    SendsHeadSlowly,
    SendsBodySlowly,
    NeverReads,
    ReadsSlowly,
    HalfCloses,
    ZeroWindow,
    NoSettingsAck,
    ResetsInALoop,
    UrgentByte,
];

/// Returns how a cell ends.
pub(crate) fn cell(peer: Peer, protocol: Protocol, phase: Phase) -> Cell {
    match (peer, protocol, phase) {
        (NeverSendsHead, Http1 | H2c | TlsHttp2, Idle) => Ends("firstRequestTimeout"),
        (SendsHeadSlowly, Http1, Idle) => Ends("headTimeout"),
        (SendsHeadSlowly, H2c | TlsHttp2, Idle) => Ends("firstRequestTimeout"),
        (NeverSendsHead | SendsHeadSlowly, Tunnel, Idle) => Empty("a tunnel begins with a head"),
        (NeverSendsHead | SendsHeadSlowly, _, Parked | Uploading | Downloading) => Empty("the request has a head"),

        (SendsBodySlowly, _, Idle) => Empty("there is no body"),
        (SendsBodySlowly, _, Parked) => Ends("coldStart"),
        (SendsBodySlowly, Http1 | H2c | TlsHttp2, Uploading) => Ends("bodyTimeout"),
        (SendsBodySlowly, Tunnel, Uploading) => Empty("a tunnel has no minimum rate"),
        (SendsBodySlowly, _, Downloading) => Empty("the minimum rate ends with the response head"),

        (NeverReads | ReadsSlowly, Http1 | H2c | TlsHttp2, Idle) => Empty("there is nothing to read"),
        (NeverReads | ReadsSlowly, Tunnel, Idle) => Ends("timeouts.idle"),
        (NeverReads | ReadsSlowly, _, Parked) => Ends("coldStart"),
        (NeverReads | ReadsSlowly, _, Uploading) => Empty("there is nothing to read"),
        (NeverReads | ReadsSlowly, _, Downloading) => Ends("sendTimeout"),

        (HalfCloses, _, Idle) => Ends("at once"),
        (HalfCloses, Http1 | Tunnel, Parked) => Ends("coldStart: it may read the response"),
        (HalfCloses, H2c | TlsHttp2, Parked) => Ends("at once"),
        (HalfCloses, _, Uploading) => Ends("at once"),
        (HalfCloses, Http1 | Tunnel, Downloading) => Ends("sendTimeout"),
        (HalfCloses, H2c | TlsHttp2, Downloading) => Ends("at once"),

        (ZeroWindow, Http1 | Tunnel, _) => Empty("a TCP window of zero is a client that never reads"),
        (ZeroWindow, H2c | TlsHttp2, Idle | Uploading) => Empty("there is nothing to send to the client"),
        (ZeroWindow, H2c | TlsHttp2, Parked) => Ends("coldStart"),
        (ZeroWindow, H2c | TlsHttp2, Downloading) => Ends("sendTimeout"),

        (NoSettingsAck, Http1 | Tunnel, _) => Empty("HTTP/1 has no SETTINGS"),
        (NoSettingsAck, H2c | TlsHttp2, Idle) => Ends("firstRequestTimeout"),
        (NoSettingsAck, H2c | TlsHttp2, Parked) => Ends("coldStart"),
        (NoSettingsAck, H2c | TlsHttp2, Uploading) => Ends("bodyTimeout"),
        (NoSettingsAck, H2c | TlsHttp2, Downloading) => Ends("sendTimeout"),

        (ResetsInALoop, H2c | TlsHttp2, Idle) => Empty("there is no stream to reset"),
        (ResetsInALoop, Http1 | Tunnel, _) => Ends("at once"),
        (ResetsInALoop, H2c | TlsHttp2, Parked | Uploading | Downloading) => Ends("at once"),

        (UrgentByte, Http1 | H2c | TlsHttp2, Idle) => Ends("firstRequestTimeout"),
        (UrgentByte, Tunnel, Idle | Uploading) => Ends("timeouts.idle"),
        (UrgentByte, _, Parked) => Ends("coldStart"),
        (UrgentByte, Http1 | H2c | TlsHttp2, Uploading) => Ends("bodyTimeout"),
        (UrgentByte, _, Downloading) => Ends("sendTimeout"),
    }
}
