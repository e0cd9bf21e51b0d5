//! The page of problem types: status and title from the activator, cause and remedy from here.

use anyhow::{Context as _, Result};
use rouse_activator::problem::{Kind, TYPES};

use crate::markdown::{GENERATED, cell, code, table};

const INTRODUCTION: &str = r#"# Problem types

A response of the function is passed on unchanged, error responses too. A response that Rouse makes itself is
`application/problem+json` (RFC 9457):

```json
{
  "type": "TYPES/function-failing",
  "title": "TITLE",
  "status": 503,
  "detail": "the pods of the function fail to start or cannot be created",
  "instance": "6a6f…",
  "namespace": "default",
  "function": "hello",
  "reason": "CrashLoopBackOff"
}
```

`type` is stable: programs may rely on it. `instance` is the request ID, the same as in `X-Request-Id`. `reason`, where there is
one, is the word of the kubelet, the scheduler or the API server, or names the limit that was exceeded; see
[Limits and queues](../tasks/limits.md). Their sentences, which name registries, Secrets, quotas and nodes, are added to `detail` for
requests from inside the cluster only.

## gRPC

A gRPC request (`Content-Type: application/grpc`, with `+proto` or the like) gets a response that is a single head with HTTP
status 200:

| header | value |
|---|---|
| `grpc-status` | the status in the table below |
| `grpc-message` | the `detail`, percent-encoded |
| `rouse-problem` | the end of the `type`, for example `queue-full`. A function cannot set it |
| `x-request-id` | the request ID |
| `grpc-retry-pushback-ms` and `retry-after` | where a retry makes sense: after how many milliseconds, and seconds |

gRPC-Web requests get the problem document, since a browser reads the HTTP status.

## Types

A function whose pods fail to start is tried again after a backoff that grows from one second to one minute. Until then
requests get `function-failing` at once. The same reason is in the Function's condition `RevisionReady`.

"#;

/// Cause and remedy of each type.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "bad-request",
        "HTTP forbids the request: two lengths, a length and chunks, no or two hosts, a bare line feed, a malformed chunk, …",
        "Fix the client, or the proxy in front of Rouse.",
    ),
    (
        "ambiguous-path",
        "The path has `..`, `//` or percent-encoding and leads to different routes depending on how it is read; see [Paths](../tasks/routes.md#ambiguous-paths).",
        "Send the path in its normalized form.",
    ),
    (
        "unknown-host",
        "No function has this host at this listener. A function with `visibility: Cluster` is not reachable through the ingress.",
        "`kubectl get functions --all-namespaces`",
    ),
    (
        "unknown-path",
        "A function has this host, and none of its routes matches the path.",
        "Check `spec.routes` of the functions of the host.",
    ),
    ("function-deleted", "The function was deleted while the request was queued.", ""),
    (
        "method-not-allowed",
        "The route does not allow the method. `Allow` lists the allowed methods.",
        "Check `spec.routes[].methods`.",
    ),
    (
        "request-timeout",
        "The request head was not complete within `activator.limits.headTimeout`, or its body arrived below `activator.limits.minBodyRate`.",
        "",
    ),
    (
        "uri-too-long",
        "The request line is longer than `activator.limits.requestLine`.",
        "Send the data in the body, or raise the limit.",
    ),
    ("expectation-failed", "`Expect` has an expectation other than `100-continue`.", "Send no other expectation."),
    (
        "queue-full",
        "A queue limit is reached; `reason` names it (`FunctionRequests`, `NamespaceBytes`, …). Queued requests are not affected.",
        "Retry after `Retry-After`. Raise the limit: [Limits and queues](../tasks/limits.md).",
    ),
    (
        "wake-throttled",
        "The function has no pod, and it (`FunctionWakes`), the functions of its namespace (`NamespaceWakes`) or all functions (`ProcessWakes`) were woken so often that its turn would come after `timeouts.coldStart`.",
        "Retry after `Retry-After`. Find the client that sends the requests.",
    ),
    (
        "header-too-large",
        "The request head exceeds `activator.limits.headBytes` or `activator.limits.headers`.",
        "Send smaller cookies or fewer headers, or raise the limit.",
    ),
    ("not-supported", "The method is `CONNECT`, or `TRACE` with `Max-Forwards: 0`.", ""),
    (
        "pod-unreachable",
        "Pods exist, and no connection to one succeeded in time.",
        "Check NetworkPolicies and the port.",
    ),
    (
        "bad-response",
        "The pod closed the connection without a response, or its response is not valid HTTP. The request may have had an effect, so it was not sent again.",
        "Read the function's log.",
    ),
    (
        "function-failing",
        "The pods fail to start or cannot be created; `reason` says why.",
        "`kubectl describe function`. The next request after `Retry-After` tries again.",
    ),
    ("shutting-down", "The activator had to stop while the request was queued.", "Retry."),
    (
        "overloaded",
        "The connection was refused before its request was read: the activator is short of memory or file descriptors, or the client has too many connections.",
        "Retry after `Retry-After`. If it persists, see [Capacity](../operations/capacity.md#memory).",
    ),
    (
        "cold-start-timeout",
        "No pod accepted requests within `timeouts.coldStart`, or all pods had as many HTTP/2 streams as they allow. `reason` is set if a cause was known by then.",
        "Check `spec.port`. If the start is slow, raise `timeouts.coldStart`.",
    ),
    ("response-timeout", "The function sent no first byte within `timeouts.response`.", "Raise `timeouts.response`."),
    (
        "deadline-exceeded",
        "The deadline of a gRPC client (`grpc-timeout`) passed while the request was queued, or before the function responded.",
        "Raise the deadline of the client above the time of a cold start.",
    ),
    (
        "loop-detected",
        "The request passed activators 16 times, as `Via` records: functions forward it to each other.",
        "Check where the functions forward requests to.",
    ),
];

/// Returns the page.
///
/// # Errors
///
/// If a problem type has no explanation here, or an explanation has no type.
pub fn page() -> Result<String> {
    let introduction = INTRODUCTION.replace("TYPES/", TYPES).replace("TITLE", Kind::FunctionFailing.title());
    let mut out = format!("{GENERATED}\n{introduction}");
    let mut rows = vec![];
    for kind in Kind::ALL {
        let name = kind.name();
        let (_, cause, remedy) = EXPLAINED
            .iter()
            .find(|(explained, ..)| *explained == name)
            .with_context(|| format!("the problem type `{name}` has no explanation in e2e/docs/src/problems.rs"))?;
        let (http, grpc) = (kind.status().as_u16().to_string(), code(kind.grpc_status().name()));
        rows.push([code(name), http, grpc, cell(kind.title()), cell(cause), cell(remedy)]);
    }
    anyhow::ensure!(rows.len() == EXPLAINED.len(), "e2e/docs/src/problems.rs explains a type that does not exist");
    table(&mut out, ["`type` ends in", "status", "gRPC status", "title", "cause", "remedy"], rows);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Kind::ALL` is a list by hand; the names in `Kind::name` are complete by the compiler.
    #[test]
    fn every_type_in_the_source_is_listed() {
        let source = std::fs::read_to_string(crate::checkout().join("activator/src/problem.rs")).unwrap();
        let names = source.split_once("fn name(self)").unwrap().1.split_once("\n    }\n").unwrap().0;
        let names: Vec<_> = names.split('"').skip(1).step_by(2).collect();
        let page = page().unwrap();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "{name} is not in Kind::ALL");
        }
    }
}
