//! The ballot of a live vote. It works without JavaScript, and a double click is one vote.
//!
//! Where anyone may vote, a random name in a cookie stands for the voter. The cookie is `Lax`: a `Strict` one
//! would be left out when a voter comes by a link from another site, and the voter would get a second name.
//! Votes sent from another site's page are refused by their origin.

use std::net::SocketAddr;
use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Form};
use canvass_election::definition::{ContestKind, Eligibility, VotePolicy, Voting};
use canvass_election::ids::Timestamp;
use canvass_protocol::problem::Code;

use super::format::{Integer, Moment};
use super::view::{Place, View};
use super::{Fault, HTML, Site, contest, words};
use crate::edge::Body;
use crate::gateway;
use crate::vote::Voter;
use crate::{App, body, reply};

/// Names the voter where anyone may vote.
const VOTER: &str = "canvass_voter";
/// Brings the answer to a vote from the form to the page that follows it; an address could be forged.
const SAID: &str = "canvass_said";
/// How long a voter's name is kept, in seconds: longer than any vote is open.
const VOTER_AGE: u32 = 180 * 24 * 3600;
/// How long an answer waits for its page, in seconds.
const SAID_AGE: u32 = 60;

/// The routes of one ballot.
pub(super) fn route() -> MethodRouter<Arc<App>> {
    get(page).post(vote).layer(DefaultBodyLimit::max(body::VOTE_LIMIT))
}

/// What the page says of the vote that was just sent.
struct Said {
    recorded: bool,
    sentence: String,
    record: Option<String>,
}

/// What the voter's earlier votes mean for this page.
struct Standing {
    record: String,
    votes: Integer,
}

#[derive(Template)]
#[template(path = "ballot.html")]
struct BallotPage<'a> {
    site: Site<'a>,
    view: &'a View<'a>,
    voting: &'a Voting,
    said: Option<Said>,
    standing: Option<Standing>,
    /// Why there is no ballot to fill in; none where there is one.
    shut: Option<String>,
    key: String,
    parts: &'a str,
}

impl BallotPage<'_> {
    fn policy(&self) -> String {
        words::policy(self.voting.policy)
    }

    fn opens(&self) -> Option<Moment> {
        self.voting.opens.map(Moment)
    }

    fn closes(&self) -> Option<Moment> {
        self.voting.closes.map(Moment)
    }

    fn by_token(&self) -> bool {
        self.voting.eligibility == Eligibility::Token
    }

    /// One click votes, where a contest is a poll.
    fn has_buttons(&self) -> bool {
        self.view.contest.kind == ContestKind::AudiencePoll
    }

    fn input(&self) -> &'static str {
        if self.view.contest.max_choices() > 1 { "checkbox" } else { "radio" }
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|c| c.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The voter's name, where the browser has one.
fn voter(headers: &HeaderMap) -> Option<&str> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    cookie(headers, VOTER).filter(|name| name.len() == 32 && name.bytes().all(hex))
}

fn set_cookie(headers: &HeaderMap, cookie: &str) -> Option<HeaderValue> {
    let https = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if https { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{cookie}; HttpOnly{secure}")).ok()
}

/// The place of a contest that votes, and its rules.
fn find<'a>(app: &'a App, id: &str) -> Result<(Place, &'a Voting), Fault> {
    let place = contest::place(app.definition(), id, None)?;
    let voting = app.definition().contests[place.contest.index()].voting();
    let voting = voting.ok_or_else(|| {
        Fault::Missing("Reporting units count the votes of this contest; there is no ballot here.".to_owned())
    })?;
    Ok((place, voting))
}

/// `GET /contests/{id}/vote`
async fn page(State(app): State<Arc<App>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    render(&app, &id, &headers).await.unwrap_or_else(|fault| fault.page(&app))
}

async fn render(app: &App, id: &str, headers: &HeaderMap) -> Result<Response, Fault> {
    let (place, voting) = find(app, id)?;
    let parts = app.edge.prepared(&contest::parts_name(place), |published| {
        contest::render_parts(app, published, place).map(|html| Body::new(HTML, html))
    })?;
    let published = app.edge.published();
    let view = View::new(app.definition(), &published, place);
    let known = voter(headers).filter(|_| voting.eligibility == Eligibility::Open);
    let cast = match known {
        Some(name) => app.engine.cast_anywhere(&app.secret.nullifier(id, name)).await.ok().flatten(),
        None => None,
    };
    let closed = published.contests[place.contest.index()].results.state.closed;
    let shut = shut(voting, app.engine.clock().now(), closed, cast.as_ref().map(|c| c.votes));
    let page = BallotPage {
        site: Site::new(app),
        view: &view,
        voting,
        said: cookie(headers, SAID).and_then(said),
        standing: cast.map(|c| Standing { record: c.record.to_string(), votes: Integer(c.votes.into()) }),
        shut,
        key: random(),
        parts: std::str::from_utf8(&parts.bytes).unwrap_or_default(),
    };
    let mut response = page.render()?.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(reply::PRIVATE));
    let name = (voting.eligibility == Eligibility::Open && known.is_none())
        .then(|| format!("{VOTER}={}; Path=/; Max-Age={VOTER_AGE}; SameSite=Lax", random()));
    let spent = cookie(headers, SAID).map(|_| said_cookie(id, "", 0));
    for cookie in [name, spent].into_iter().flatten() {
        answer.extend(set_cookie(headers, &cookie).map(|value| (header::SET_COOKIE, value)));
    }
    Ok(response)
}

/// Why nobody, or not this voter, can vote now.
fn shut(voting: &Voting, now: Timestamp, closed: Option<Timestamp>, votes: Option<u32>) -> Option<String> {
    if let Some(opens) = voting.opens.filter(|opens| now < *opens) {
        return Some(format!("Voting opens at {}.", Moment(opens)));
    }
    if closed.is_some() || voting.closes.is_some_and(|closes| now >= closes) {
        return Some("Voting is over.".to_owned());
    }
    match (voting.policy, votes?) {
        (VotePolicy::One, _) => Some("You have voted in this contest.".to_owned()),
        (VotePolicy::UpTo(most), votes) if votes >= most => {
            Some(format!("You have cast all of your {} votes.", Integer(most.into())))
        }
        _ => None,
    }
}

/// `POST /contests/{id}/vote`
async fn vote(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
) -> Response {
    let limited = app.limits.address(peer.ip(), 1).err();
    match take(&app, &id, &headers, form, limited).await {
        Ok(said) => {
            let mut response = StatusCode::SEE_OTHER.into_response();
            let answer = response.headers_mut();
            let back = HeaderValue::from_str(&format!("/contests/{id}/vote#said"));
            answer.extend(back.ok().map(|value| (header::LOCATION, value)));
            answer.insert(header::CACHE_CONTROL, HeaderValue::from_static(reply::PRIVATE));
            let cookie = set_cookie(&headers, &said_cookie(&id, &said, SAID_AGE));
            answer.extend(cookie.map(|value| (header::SET_COOKIE, value)));
            response
        }
        Err(fault) => fault.page(&app),
    }
}

fn said_cookie(contest: &str, said: &str, age: u32) -> String {
    format!("{SAID}={said}; Path=/contests/{contest}/vote; Max-Age={age}; SameSite=Strict")
}

/// Casts the vote of a form; the answer is what [`said`] reads.
async fn take(
    app: &App,
    id: &str,
    headers: &HeaderMap,
    form: Result<Form<Vec<(String, String)>>, FormRejection>,
    limited: Option<Code>,
) -> Result<String, Fault> {
    let (place, voting) = find(app, id)?;
    let refused = |sentence: &str| Fault::Refused(StatusCode::FORBIDDEN, sentence.to_owned());
    if !is_own_page(headers) {
        return Err(refused(
            "This vote was sent from another site's page. It was not recorded; please vote on the contest's own page.",
        ));
    }
    let Form(fields) = form.map_err(|rejection| {
        Fault::Refused(
            rejection.status(),
            "The ballot could not be read; nothing was recorded. Please go back and try again.".to_owned(),
        )
    })?;
    if let Some(code) = limited {
        return Ok(code.as_str().to_owned());
    }
    let field =
        |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.trim()).unwrap_or_default();
    let selections: Vec<String> =
        fields.iter().filter(|(name, _)| name == "selection").map(|(_, id)| id.clone()).collect();
    let subject = match voting.eligibility {
        Eligibility::Token if field("token").is_empty() => return Ok(Code::TokenMissing.as_str().to_owned()),
        Eligibility::Token => Voter::Token(field("token")),
        Eligibility::Open => Voter::Named(voter(headers).ok_or_else(|| {
            refused("Your browser did not send this page's cookie, so nothing was recorded. Please allow cookies for this site and vote again.")
        })?),
    };
    Ok(match gateway::cast(app, place.contest, subject, &selections, Some(field("key"))).await {
        Ok(recorded) => format!("recorded.{}", recorded.record),
        Err(problem) => match &problem.record {
            Some(record) => format!("{}.{record}", problem.code.as_str()),
            None => problem.code.as_str().to_owned(),
        },
    })
}

/// Whether the request comes from this server's own page. What sends neither header is no browser, and no
/// other site can make it vote.
fn is_own_page(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    match text(header::ORIGIN) {
        None => true,
        Some(origin) => origin.split_once("://").map(|(_, host)| host) == text(header::HOST),
    }
}

/// Reads the answer to the last vote: a word, and the record it is about.
fn said(text: &str) -> Option<Said> {
    let (word, record) = text.split_once('.').map_or((text, None), |(word, record)| (word, Some(record)));
    let record =
        record.and_then(|r| r.parse::<canvass_election::ids::RecordId>().ok()).map(|r| r.to_string());
    if word == "recorded" {
        return Some(Said { recorded: true, sentence: "Your vote is recorded.".to_owned(), record });
    }
    let code = *Code::ALL.iter().find(|code| code.as_str() == word)?;
    Some(Said { recorded: false, sentence: refusal(code), record })
}

/// Why a vote was not recorded, and what helps.
fn refusal(code: Code) -> String {
    match code {
        Code::AlreadyVoted => "You have voted in this contest before. That vote counts; this one does not.",
        Code::VotesUsedUp => "You have cast all of your votes in this contest. This one does not count.",
        Code::BadChoices => "Nothing was recorded: please choose at least one option, and no more than the contest allows.",
        Code::NotOpen => "Nothing was recorded: voting has not begun.",
        Code::Closed => "Nothing was recorded: voting is over.",
        Code::TokenMissing => "Nothing was recorded: please enter your voting token.",
        Code::TokenInvalid => "Nothing was recorded: this voting token is not valid. Please check that you have copied all of it.",
        Code::TokenExpired => "Nothing was recorded: this voting token has expired.",
        Code::TokenForeign => "Nothing was recorded: this voting token is for another contest.",
        Code::RateLimited | Code::Overloaded | Code::LogUnavailable => {
            "Nothing was recorded: there is more to do than we can at the moment. Please try again."
        }
        Code::KeyReused => "This ballot was sent before with another choice. That vote counts; this one does not.",
        other => return format!("Nothing was recorded. {}", other.title()),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        rows.iter().map(|(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn only_the_servers_own_page_may_vote() {
        let rows: [(&[(&str, &str)], bool); 6] = [
            (&[], true),
            (&[("host", "a.test"), ("origin", "https://a.test")], true),
            (&[("host", "a.test:80"), ("origin", "http://b.test")], false),
            (&[("host", "a.test"), ("origin", "null")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://a.test")], true),
            (&[("sec-fetch-site", "same-site"), ("host", "a.test"), ("origin", "http://a.test")], false),
        ];
        for (given, own) in rows {
            let given: HeaderMap = given
                .iter()
                .map(|(n, v)| (n.parse::<header::HeaderName>().unwrap(), v.parse().unwrap()))
                .collect();
            assert_eq!(is_own_page(&given), own, "{given:?}");
        }
    }

    #[test]
    fn a_voters_name_is_taken_only_in_its_own_form() {
        let name = "canvass_voter=0123456789abcdef0123456789abcdef";
        assert_eq!(voter(&headers(&[("cookie", name)])), Some(&name[14..]));
        for bad in ["canvass_voter=", "canvass_voter=0123", "canvass_voters=0123456789abcdef0123456789abcdef"]
        {
            assert_eq!(voter(&headers(&[("cookie", bad)])), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_is_read_back_and_nothing_else() {
        let recorded = said("recorded.votes-3-17-0").unwrap();
        assert!(recorded.recorded && recorded.record.as_deref() == Some("votes-3-17-0"));
        assert!(!said("already-voted.votes-3-17-0").unwrap().recorded);
        assert!(said("<b>hello</b>").is_none());
        assert_eq!(said("recorded.<b>").unwrap().record, None);
    }
}
