//! Who may read the demand stream.
//!
//! The stream names every function with its load. A reader shows a token of its ServiceAccount, made for the audience
//! [`DEMAND_AUDIENCE`], and the API server says whose it is (a TokenReview). So there is no secret to create, to distribute or
//! to rotate: the kubelet renews the token every hour, and whoever gets hold of one can do nothing else with it.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::Request;
use kube::Client;
use parking_lot::Mutex;
use rouse_crds::names::DEMAND_AUDIENCE;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::rate_limit::{Rate, RateLimiter};

/// Finds out whose a token is.
pub trait TokenReviewer: fmt::Debug + Send + Sync {
    /// Returns the user of a token for our audience; `None` if it is not valid.
    fn user<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<String>, String>>;
}

/// Who may read the demand stream, and how many at once.
#[derive(Debug)]
pub struct Readers {
    /// User name and reviewer; without them, whoever connects over loopback.
    allowed: Option<(String, Arc<dyn TokenReviewer>)>,
    slots: Arc<Semaphore>,
    reviews: Mutex<HashMap<IpAddr, RateLimiter>>,
}

/// Why a reader is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// Without a token, or with one of somebody else.
    NotAllowed,
    /// Too many readers, or too many tokens of one client.
    TooMany,
    /// The API server does not say whose the token is.
    Unknown(String),
}

/// Readers at once: operators of a few replicas, and a person.
const MOST: usize = 8;
/// Reviews of the tokens of one client. Each is a request to the API server.
const REVIEWS: Rate = Rate { burst: 4, interval: Duration::from_secs(1) };
/// Clients whose reviews are counted.
const CLIENTS: usize = 256;
/// Longest token; those of ServiceAccounts have about a thousand bytes.
const LONGEST: usize = 8 << 10;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

impl Readers {
    /// Allows readers on loopback only.
    #[must_use]
    pub fn loopback() -> Self {
        Self { allowed: None, slots: Arc::new(Semaphore::new(MOST)), reviews: Mutex::default() }
    }

    /// Allows the user of this name, such as `system:serviceaccount:rouse-system:rouse-operator`.
    #[must_use]
    pub fn of(user: String, reviewer: Arc<dyn TokenReviewer>) -> Self {
        Self { allowed: Some((user, reviewer)), ..Self::loopback() }
    }

    /// Admits a reader with the value of its header `Authorization`, for as long as it holds the permit.
    ///
    /// # Errors
    ///
    /// Why it is rejected.
    pub async fn admit(
        &self,
        client: IpAddr,
        authorization: Option<&str>,
    ) -> Result<OwnedSemaphorePermit, Unauthorized> {
        match &self.allowed {
            None if client.to_canonical().is_loopback() => {}
            None => return Err(Unauthorized::NotAllowed),
            Some((user, reviewer)) => {
                let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
                let token = token.filter(|token| !token.is_empty() && token.len() <= LONGEST);
                let token = token.ok_or(Unauthorized::NotAllowed)?;
                if !self.may_review(client, Instant::now()) {
                    return Err(Unauthorized::TooMany);
                }
                let review = timeout(REVIEW_TIMEOUT, reviewer.user(token)).await;
                match review.unwrap_or_else(|_| Err("timed out".to_owned())).map_err(Unauthorized::Unknown)? {
                    Some(found) if found == *user => {}
                    _ => return Err(Unauthorized::NotAllowed),
                }
            }
        }
        self.slots.clone().try_acquire_owned().map_err(|_| Unauthorized::TooMany)
    }

    fn may_review(&self, client: IpAddr, now: Instant) -> bool {
        let mut reviews = self.reviews.lock();
        if reviews.len() >= CLIENTS && !reviews.contains_key(&client) {
            // Whoever could do a whole burst is as good as new.
            reviews.retain(|_, limiter| !limiter.is_full(now));
            if reviews.len() >= CLIENTS {
                return false;
            }
        }
        let limiter = reviews.entry(client).or_insert_with(|| RateLimiter::new(REVIEWS));
        let may = limiter.next(now) <= now;
        if may {
            limiter.take(now);
        }
        may
    }
}

/// Asks the API server.
#[derive(Clone)]
pub struct ApiReviewer(Client);

impl ApiReviewer {
    /// Creates a reviewer.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl fmt::Debug for ApiReviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiReviewer")
    }
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    audiences: Vec<String>,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

impl Status {
    /// Returns the user. A token without our audience is one for somebody else, such as the API server.
    fn user(self) -> Option<String> {
        let ours = self.audiences.iter().any(|audience| audience == DEMAND_AUDIENCE);
        (self.authenticated && ours).then_some(self.user.username)
    }
}

impl TokenReviewer for ApiReviewer {
    fn user<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(async move {
            let review = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": {"token": token, "audiences": [DEMAND_AUDIENCE]},
            });
            let body = serde_json::to_vec(&review).map_err(|error| error.to_string())?;
            let request = Request::post("/apis/authentication.k8s.io/v1/tokenreviews")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(body)
                .map_err(|error| error.to_string())?;
            let review: Review = self.0.request(request).await.map_err(|error| error.to_string())?;
            Ok(review.status.user())
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const OPERATOR: &str = "system:serviceaccount:rouse-system:rouse-operator";

    /// Knows the tokens `operator` and `other`.
    #[derive(Debug)]
    struct Fake;

    impl TokenReviewer for Fake {
        fn user<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<String>, String>> {
            Box::pin(async move {
                match token {
                    "operator" => Ok(Some(OPERATOR.to_owned())),
                    "other" => Ok(Some("system:serviceaccount:default:default".to_owned())),
                    "slow" => std::future::pending().await,
                    "down" => Err("connection refused".to_owned()),
                    _ => Ok(None),
                }
            })
        }
    }

    fn pod() -> IpAddr {
        [10, 0, 0, 7].into()
    }

    #[rstest]
    #[case(Some("Bearer operator"), None)]
    #[case(None, Some(Unauthorized::NotAllowed))]
    #[case(Some("Bearer "), Some(Unauthorized::NotAllowed))]
    #[case(Some("Basic operator"), Some(Unauthorized::NotAllowed))]
    #[case(Some("Bearer other"), Some(Unauthorized::NotAllowed))]
    #[case(Some("Bearer made-up"), Some(Unauthorized::NotAllowed))]
    #[case(Some("Bearer slow"), Some(Unauthorized::Unknown("timed out".into())))]
    #[case(Some("Bearer down"), Some(Unauthorized::Unknown("connection refused".into())))]
    #[tokio::test(start_paused = true)]
    async fn only_the_operator_s_token_is_allowed(
        #[case] authorization: Option<&str>,
        #[case] expected: Option<Unauthorized>,
    ) {
        let readers = Readers::of(OPERATOR.to_owned(), Arc::new(Fake));
        assert_eq!(readers.admit(pod(), authorization).await.err(), expected);
        let loopback = readers.admit([127, 0, 0, 1].into(), None).await.err();
        assert_eq!(loopback, Some(Unauthorized::NotAllowed), "loopback is no exception");
    }

    #[tokio::test]
    async fn without_an_allowed_user_only_loopback_is_allowed() {
        let readers = Readers::loopback();
        assert_eq!(readers.admit(pod(), Some("Bearer operator")).await.err(), Some(Unauthorized::NotAllowed));
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(readers.admit(loopback.parse().unwrap(), None).await.is_ok());
        }
    }

    #[tokio::test]
    async fn readers_at_once_are_bounded() {
        let readers = Readers::loopback();
        let mut held = vec![];
        while let Ok(permit) = readers.admit([127, 0, 0, 1].into(), None).await {
            held.push(permit);
        }
        assert_eq!(held.len(), MOST);
        held.pop();
        assert!(readers.admit([127, 0, 0, 1].into(), None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_guesses_does_not_keep_the_operator_out() {
        let readers = Readers::of(OPERATOR.to_owned(), Arc::new(Fake));
        for _ in 0..4 {
            assert_eq!(readers.admit(pod(), Some("Bearer x")).await.err(), Some(Unauthorized::NotAllowed));
        }
        assert_eq!(readers.admit(pod(), Some("Bearer operator")).await.err(), Some(Unauthorized::TooMany));
        assert!(readers.admit([10, 0, 0, 8].into(), Some("Bearer operator")).await.is_ok());
        for n in 0..CLIENTS {
            let other = IpAddr::from([10, 1, 0, u8::try_from(n % 256).unwrap()]);
            assert!(readers.may_review(other, Instant::now()) || readers.reviews.lock().len() == CLIENTS);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(readers.admit([10, 0, 0, 9].into(), Some("Bearer operator")).await.is_ok());
        assert!(readers.reviews.lock().len() < CLIENTS);
    }

    #[test]
    fn a_token_for_another_audience_is_not_valid() {
        let user = |status: serde_json::Value| serde_json::from_value::<Review>(status).unwrap().status.user();
        let valid =
            json!({"status": {"authenticated": true, "audiences": [DEMAND_AUDIENCE], "user": {"username": "u"}}});
        assert_eq!(user(valid), Some("u".to_owned()));
        // An API server that ignores the audiences of a review returns none.
        let other = json!({"status": {"authenticated": true, "user": {"username": "u"}}});
        assert_eq!(user(other), None);
        let invalid = json!({"status": {"authenticated": false, "audiences": [DEMAND_AUDIENCE], "error": "expired"}});
        assert_eq!(user(invalid), None);
        assert_eq!(user(json!({})), None);
    }
}
