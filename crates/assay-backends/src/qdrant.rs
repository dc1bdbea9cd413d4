//! Qdrant, by its official client over gRPC.
//!
//! A collection holds a point for each chunk, under the chunk's id, with its document as payload. The first chunk
//! of a document also carries the document's key, and is written last: a document is there once its key is. What the
//! collection was made with, and its mark, are its metadata (Qdrant 1.16 or later).

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use assay_index::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Mark, Near, VectorBackend,
};
use qdrant_client::config::QdrantConfig;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vectors_config::Config as Vectors;
use qdrant_client::qdrant::{
    CollectionConfig, Condition, CreateCollection, CreateCollectionBuilder,
    CreateFieldIndexCollectionBuilder, DeletePointsBuilder, Distance, FieldType, Filter,
    GetPointsBuilder, HnswConfigDiffBuilder, PointId, PointStruct, QueryPointsBuilder, Range,
    ScrollPointsBuilder, SearchParamsBuilder, UpdateCollection, UpsertPointsBuilder, Value,
    VectorParamsBuilder,
};
use qdrant_client::{Qdrant as Client, QdrantError};
use tokio::runtime::Runtime;

use crate::Precision;

/// Changes with the payload and the metadata, and with their meaning.
const FORMAT: i64 = 1;
/// Points of one request.
const POINTS: usize = 256;
/// Documents that are listed at a time.
const PAGE: u32 = 4096;
/// Of every point: its document.
const DOCUMENT: &str = "document";
/// Of the first point of a document: the document again, so that those can be found, and its key.
const WHOLE: &str = "whole";
const KEY: &str = "key";
/// Candidates that a search along the graph keeps.
const SEARCH_WIDTH: u64 = 200;

/// A Qdrant server, or cluster.
pub(crate) struct Qdrant {
    client: Client,
    runtime: Runtime,
    server: String,
    precision: Precision,
}

impl Qdrant {
    pub(crate) fn new(
        scheme: &str,
        address: &str,
        key: Option<&str>,
        precision: Precision,
    ) -> Result<Self, String> {
        let address = address.trim_end_matches('/');
        if address.is_empty() || address.contains(['@', '/', '?']) {
            return Err("it is not a host and a port; the key is named by backend_key_env".into());
        }
        let address = match address.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => address.to_owned(),
            Some((_, port)) if !port.ends_with(']') => return Err(format!("{port} is no port")),
            _ => format!("{address}:6334"),
        };
        // The check would print, and a server that is away is told by the first call.
        let mut config =
            QdrantConfig::from_url(&format!("{scheme}://{address}")).skip_compatibility_check();
        config.set_connect_timeout(Duration::from_secs(10));
        config.set_timeout(Duration::from_secs(60));
        if let Some(key) = key {
            config.set_api_key(key);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("qdrant")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        // The client's connections belong to the runtime.
        let client = runtime.block_on(async { config.build() }).map_err(|e| e.to_string())?;
        Ok(Qdrant { client, runtime, server: format!("qdrant://{address}"), precision })
    }

    fn run<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = Result<T, QdrantError>>,
    ) -> Result<T, BackendError> {
        self.runtime.block_on(call).map_err(|e| self.failed(doing, e))
    }

    fn failed(&self, doing: &'static str, error: QdrantError) -> BackendError {
        let server = self.server.clone();
        let status = match &error {
            QdrantError::ResponseError { status } => Some(status),
            _ => None,
        };
        // Codes of gRPC.
        match status.map(|status| (status.code() as i32, status.message().to_owned())) {
            // Deadline exceeded, unavailable; the client tells a failed connection as an internal error, and one that
            // broke as an unknown one.
            Some((4 | 14, said)) => BackendError::Away { server, source: said.into() },
            Some((2 | 13, said))
                if said.starts_with("Failed to connect") || said == "transport error" =>
            {
                BackendError::Away { server, source: said.into() }
            }
            Some((code, said)) => {
                let hint = match code {
                    5 => Some("`assay index rebuild` sends all vectors again"),
                    7 | 16 => Some(
                        "retrieval.backend_key_env names the environment variable that holds the API key",
                    ),
                    12 => Some("Qdrant 1.16 or later is needed"),
                    _ => None,
                };
                BackendError::Failed { server, doing, source: said.into(), hint }
            }
            None => BackendError::Failed { server, doing, source: error.into(), hint: None },
        }
    }

    fn making(&self, of: &Collection) -> CreateCollection {
        let exact = self.precision == Precision::Exact;
        let mut making = CreateCollectionBuilder::new(&of.name)
            .vectors_config(VectorParamsBuilder::new(of.dims as u64, Distance::Dot));
        if exact {
            // No graph, for no search uses it.
            making = making.hnsw_config(HnswConfigDiffBuilder::default().m(0));
        }
        let mut making = making.build();
        making.metadata = HashMap::from([
            ("format".to_owned(), Value::from(FORMAT)),
            ("embedder".to_owned(), Value::from(of.embedder.as_str())),
        ]);
        making
    }

    /// The mark of a collection that is as it should be.
    fn checked(
        &self,
        of: &Collection,
        config: &CollectionConfig,
    ) -> Result<Option<Mark>, BackendError> {
        let text = |name| config.metadata.get(name).and_then(|v: &Value| v.as_str());
        let format = config.metadata.get("format").and_then(Value::as_integer);
        let params =
            config.params.as_ref().and_then(|p| p.vectors_config.as_ref()?.config.as_ref());
        let found = match (format, text("embedder"), params) {
            (Some(format), Some(embedder), Some(Vectors::Params(vectors))) => {
                described(format, embedder, vectors.size, vectors.distance)
            }
            _ => "of another program".to_owned(),
        };
        let expected = described(FORMAT, &of.embedder, of.dims as u64, Distance::Dot as i32);
        if found != expected {
            let (server, collection) = (self.server.clone(), of.name.clone());
            return Err(BackendError::Mismatch { server, collection, found, expected });
        }
        Ok(text("mark").and_then(|mark| from_hex(mark)))
    }

    async fn upsert(&self, of: &Collection, points: Vec<PointStruct>) -> Result<(), QdrantError> {
        let mut points = points.into_iter().peekable();
        while points.peek().is_some() {
            let piece: Vec<PointStruct> = points.by_ref().take(POINTS).collect();
            self.client.upsert_points(UpsertPointsBuilder::new(&of.name, piece).wait(true)).await?;
        }
        Ok(())
    }

    async fn delete(&self, of: &Collection, documents: &[i64]) -> Result<(), QdrantError> {
        if documents.is_empty() {
            return Ok(());
        }
        let filter = Filter::must([Condition::matches(DOCUMENT, documents.to_vec())]);
        self.client
            .delete_points(DeletePointsBuilder::new(&of.name).points(filter).wait(true))
            .await?;
        Ok(())
    }
}

impl VectorBackend for Qdrant {
    fn server(&self) -> &str {
        &self.server
    }

    fn is_approximate(&self) -> bool {
        self.precision == Precision::Approximate
    }

    fn open(&self, of: &Collection) -> Result<Option<Mark>, BackendError> {
        let doing = "opening the collection";
        if !self.run(doing, self.client.collection_exists(&of.name))? {
            self.run(doing, async {
                self.client.create_collection(self.making(of)).await?;
                // Before there is a graph, which is made along with them.
                for field in [DOCUMENT, WHOLE] {
                    let index =
                        CreateFieldIndexCollectionBuilder::new(&of.name, field, FieldType::Integer);
                    self.client.create_field_index(index.wait(true)).await?;
                }
                Ok(())
            })?;
        }
        let info = self.run(doing, self.client.collection_info(&of.name))?;
        let config = info.result.and_then(|info| info.config).unwrap_or_default();
        self.checked(of, &config)
    }

    fn clear(&self, of: &Collection) -> Result<(), BackendError> {
        self.run("removing the collection", async {
            if self.client.collection_exists(&of.name).await? {
                self.client.delete_collection(&of.name).await?;
            }
            Ok(())
        })
    }

    fn documents(
        &self,
        of: &Collection,
        ids: Option<&[i64]>,
    ) -> Result<HashMap<i64, DocumentKey>, BackendError> {
        let condition = match ids {
            Some(ids) => Condition::matches(WHOLE, ids.to_vec()),
            None => Condition::range(WHOLE, Range { gte: Some(0.0), ..Range::default() }),
        };
        let mut known = HashMap::new();
        let mut next = None;
        loop {
            let mut scroll = ScrollPointsBuilder::new(&of.name)
                .filter(Filter::must([condition.clone()]))
                .limit(PAGE)
                .with_payload(true)
                .with_vectors(false);
            if let Some(next) = next {
                scroll = scroll.offset::<PointId>(next);
            }
            let page = self.run("listing documents", self.client.scroll(scroll))?;
            known.extend(page.result.iter().filter_map(|point| {
                let document = point.payload.get(DOCUMENT)?.as_integer()?;
                Some((document, from_hex(point.payload.get(KEY)?.as_str()?)?))
            }));
            next = page.next_page_offset;
            if next.is_none() {
                return Ok(known);
            }
        }
    }

    fn put(&self, of: &Collection, documents: &[BackendDocument]) -> Result<(), BackendError> {
        let mut replaced: Vec<i64> = documents.iter().map(|d| d.id).collect();
        let (mut first, mut rest) = (Vec::new(), Vec::new());
        for document in documents {
            let rows = document.vectors.chunks_exact(of.dims.max(1));
            for (n, (chunk, row)) in document.chunks.iter().zip(rows).enumerate() {
                let mut payload = HashMap::from([(DOCUMENT.to_owned(), Value::from(document.id))]);
                if n == 0 {
                    payload.insert(WHOLE.to_owned(), document.id.into());
                    payload.insert(KEY.to_owned(), hex(&document.key).into());
                }
                let point = PointStruct::new(chunk.unsigned_abs(), row.to_vec(), payload);
                if n == 0 { first.push(point) } else { rest.push(point) }
            }
        }
        self.run("writing vectors", async {
            // Documents that have one of these chunks would no longer be whole.
            let chunks = documents.iter().flat_map(|d| &d.chunks);
            let chunks: Vec<PointId> = chunks.map(|c| c.unsigned_abs().into()).collect();
            let there = self.client.get_points(
                GetPointsBuilder::new(&of.name, chunks).with_payload(true).with_vectors(false),
            );
            for point in there.await?.result {
                replaced.extend(point.payload.get(DOCUMENT).and_then(Value::as_integer));
            }
            self.delete(of, &replaced).await?;
            self.upsert(of, rest).await?;
            self.upsert(of, first).await
        })
    }

    fn remove(&self, of: &Collection, documents: &[i64]) -> Result<(), BackendError> {
        self.run("removing vectors", self.delete(of, documents))
    }

    fn set_mark(&self, of: &Collection, mark: Mark) -> Result<(), BackendError> {
        let update = UpdateCollection {
            collection_name: of.name.clone(),
            metadata: HashMap::from([("mark".to_owned(), hex(&mark).into())]),
            ..UpdateCollection::default()
        };
        self.run("marking the collection", self.client.update_collection(update)).map(|_| ())
    }

    fn search(
        &self,
        of: &Collection,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, BackendError> {
        let exact = exact || !self.is_approximate();
        let mut params = SearchParamsBuilder::default().exact(exact);
        if !exact {
            params = params.hnsw_ef(SEARCH_WIDTH.max(n as u64));
        }
        let mut search = QueryPointsBuilder::new(&of.name)
            .query(query.to_vec())
            .limit(n as u64)
            .params(params)
            .with_payload(false)
            .with_vectors(false);
        match among {
            Among::All => {}
            Among::Only(ids) => {
                search = search.filter(Filter::must([Condition::matches(DOCUMENT, ids.to_vec())]));
            }
            Among::Except(ids) => {
                search =
                    search.filter(Filter::must_not([Condition::matches(DOCUMENT, ids.to_vec())]));
            }
        }
        let found = self.run("searching", self.client.query(search))?.result;
        let near = found.into_iter().filter_map(|point| match point.id?.point_id_options? {
            PointIdOptions::Num(id) => {
                Some(Near { chunk: i64::try_from(id).ok()?, similarity: point.score })
            }
            // Not one of ours.
            PointIdOptions::Uuid(_) => None,
        });
        Ok(near.collect())
    }
}

fn described(format: i64, embedder: &str, dims: u64, distance: i32) -> String {
    let dot = if distance == Distance::Dot as i32 { "" } else { ", not compared by dot product" };
    format!("of format {format} with {dims} values of {embedder}{dot}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes().as_chunks::<2>().0;
    let bytes =
        digits.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
