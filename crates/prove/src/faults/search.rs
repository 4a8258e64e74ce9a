//! The search engine is gone, while items are created.

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::surroundings::{restart_with, restart_without};
use crate::{
    engine::Engine,
    history::Event,
    scene::{LEASE, Scene},
};

/// How many items are created before, during and after the outage.
const ITEMS: usize = 20;
const PASSWORD: &str = "a long enough password";

/// A user who creates items.
struct User {
    http: Client,
    url: String,
    token: String,
}

impl User {
    async fn register(scene: &mut Scene<'_>) -> Result<Self> {
        let (http, url) = scene.clients.api();
        let email = format!("prove-{}@example.com", scene.random.u32(..));
        let user = json!({ "email": email, "password": PASSWORD, "full_name": "Prove" });
        let registered = http.post(format!("{url}/api/v1/users/register")).json(&user).send().await?;
        registered.error_for_status()?;
        let login = http.post(format!("{url}/api/v1/users/login")).json(&user).send().await?;
        let login: Value = login.error_for_status()?.json().await?;
        let token = login["access_token"].as_str().context("a token")?.to_owned();
        Ok(Self { http, url, token })
    }

    /// Creates items, and searches them. Both must work with and without the engine.
    async fn create_items(&self, scene: &Scene<'_>) -> Result<()> {
        for number in 0..ITEMS {
            let item = json!({ "title": format!("Item {number}") });
            let request = self.http.post(format!("{}/api/v1/items", self.url)).bearer_auth(&self.token).json(&item);
            let response = request.send().await?;
            if response.status() != StatusCode::CREATED {
                bail!("creating an item: {}", response.status());
            }
            let item: Value = response.json().await?;
            scene.history.record(Event::Created { item: item["id"].as_i64().context("an id")? });
            let search = self.http.get(format!("{}/api/v1/search/items?q=item", self.url)).send().await?;
            if search.status() != StatusCode::OK {
                scene.history.record(Event::Broken { what: format!("a search got {}", search.status()) });
            }
        }
        Ok(())
    }
}

/// Items are created and found without the engine, and it gets all of them later.
pub(super) async fn lose_engine(scene: &mut Scene<'_>) -> Result<()> {
    let engine = Engine::start(scene.history.clone(), None).await?;
    let address = engine.address;
    restart_with(scene, "ELASTICSEARCH_URL", &format!("http://{address}")).await?;
    let user = User::register(scene).await?;
    user.create_items(scene).await?;
    engine.stop().await;
    user.create_items(scene).await?;
    scene.run_for(LEASE).await;
    let engine = Engine::start(scene.history.clone(), Some(address)).await?;
    user.create_items(scene).await?;
    scene.run_until_no_job("index_item").await?;
    restart_without(scene).await?;
    engine.stop().await;
    Ok(())
}
