"""Qdrant's gRPC interface, as the official client's own generated code has it, over qdrant-edge, which is the engine of
Qdrant's server in a library: as much of it as Assay uses, anything else is refused.

`start` answers with the address, `kill` ends the server with SIGKILL. At the end of the input it is stopped. Every call
must bring the API key `secret`."""

import json
import os
import shutil
import subprocess
import sys
from concurrent import futures
from pathlib import Path


def serve(root: Path) -> None:
    import grpc
    import qdrant_edge as edge
    from qdrant_client.grpc import (
        collections_pb2 as collections,
        collections_service_pb2_grpc as collections_service,
        json_with_int_pb2 as values,
        points_pb2 as points,
        points_service_pb2_grpc as points_service,
        qdrant_common_pb2 as common,
    )

    class Refused(Exception):
        def __init__(self, code, what):
            super().__init__(what)
            self.code = code

    def refuse_unless(condition, what):
        if not condition:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, what)

    def only(message, *names):
        """Refuses a message with fields that are not understood here."""
        others = [field.name for field, _ in message.ListFields() if field.name not in names]
        refuse_unless(not others, f"{message.DESCRIPTOR.name}.{', '.join(others)}")

    def shard_at(path: Path, config=None):
        if config is None:
            return edge.EdgeShard.load(str(path / "shard"))
        (path / "shard").mkdir(parents=True)
        return edge.EdgeShard.create(str(path / "shard"), config)

    shards = {}

    def folder(name: str) -> Path:
        return root / name

    def shard(name: str):
        if not (folder(name) / "made.json").exists():
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Collection `{name}` doesn't exist!")
        if name not in shards:
            shards[name] = shard_at(folder(name))
        return shards[name]

    def write(name: str, made: dict) -> None:
        aside = folder(name) / "made.tmp"
        aside.write_text(json.dumps(made))
        os.replace(aside, folder(name) / "made.json")

    def read(name: str) -> dict:
        shard(name)
        return json.loads((folder(name) / "made.json").read_text())

    def plain(value):
        kind = value.WhichOneof("kind")
        refuse_unless(kind in ("integer_value", "string_value"), f"a payload of {kind}")
        return getattr(value, kind)

    def wrapped(value):
        if isinstance(value, int):
            return values.Value(integer_value=value)
        return values.Value(string_value=value)

    def condition(given):
        refuse_unless(given.WhichOneof("condition_one_of") == "field", "a condition on no field")
        field = given.field
        only(field, "key", "match", "range")
        if field.HasField("range"):
            r = field.range
            limits = {name: getattr(r, name) for name in ("gte", "gt", "lte", "lt") if r.HasField(name)}
            return edge.FieldCondition(field.key, range=edge.RangeFloat(**limits))
        refuse_unless(field.match.WhichOneof("match_value") == "integers", "a match of no integers")
        return edge.FieldCondition(field.key, match=edge.MatchAny(list(field.match.integers.integers)))

    def condition_filter(given):
        only(given, "must", "must_not")
        return edge.Filter(must=[condition(c) for c in given.must], must_not=[condition(c) for c in given.must_not])

    def selected(selector):
        """Whether payloads or vectors are asked for."""
        refuse_unless(selector.WhichOneof("selector_options") in (None, "enable"), "a selector of fields")
        return selector.enable

    def payload_of(point):
        return {key: wrapped(value) for key, value in (point.payload or {}).items()}

    def done():
        result = points.UpdateResult(status=points.UpdateStatus.Completed)
        return points.PointsOperationResponse(result=result)

    def guarded(method):
        def call(self, request, context):
            if dict(context.invocation_metadata()).get("api-key") != "secret":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
            try:
                return method(request)
            except Refused as refused:
                context.abort(refused.code, str(refused))
            except Exception as error:
                context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")

        return call

    def exists(request):
        there = (folder(request.collection_name) / "made.json").exists()
        return collections.CollectionExistsResponse(result=collections.CollectionExists(exists=there))

    def create(request):
        only(request, "collection_name", "vectors_config", "hnsw_config", "metadata")
        name, vectors = request.collection_name, request.vectors_config.params
        only(vectors, "size", "distance")
        if (folder(name) / "made.json").exists():
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Collection `{name}` already exists!")
        # Half made when the server was killed.
        shutil.rmtree(folder(name), ignore_errors=True)
        distances = {collections.Distance.Dot: edge.Distance.Dot, collections.Distance.Cosine: edge.Distance.Cosine}
        m = request.hnsw_config.m if request.hnsw_config.HasField("m") else 16
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(vectors.size, distances[vectors.distance]),
            hnsw_config=edge.HnswIndexConfig(m, 100, 100),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=100),
        )
        shards[name] = shard_at(folder(name), config)
        metadata = {key: plain(value) for key, value in request.metadata.items()}
        write(name, {"size": vectors.size, "distance": vectors.distance, "m": m, "metadata": metadata})
        return collections.CollectionOperationResponse(result=True)

    def get(request):
        made = read(request.collection_name)
        params = collections.VectorParams(size=made["size"], distance=made["distance"])
        config = collections.CollectionConfig(
            params=collections.CollectionParams(vectors_config=collections.VectorsConfig(params=params)),
            metadata={key: wrapped(value) for key, value in made["metadata"].items()},
        )
        info = collections.CollectionInfo(status=collections.CollectionStatus.Green, config=config)
        return collections.GetCollectionInfoResponse(result=info)

    def update(request):
        only(request, "collection_name", "metadata")
        made = read(request.collection_name)
        made["metadata"].update({key: plain(value) for key, value in request.metadata.items()})
        write(request.collection_name, made)
        return collections.CollectionOperationResponse(result=True)

    def delete_collection(request):
        name = request.collection_name
        shard(name).close()
        del shards[name]
        os.remove(folder(name) / "made.json")
        shutil.rmtree(folder(name))
        return collections.CollectionOperationResponse(result=True)

    def create_field_index(request):
        only(request, "collection_name", "wait", "field_name", "field_type")
        refuse_unless(request.field_type == points.FieldType.FieldTypeInteger, "an index of no integers")
        schema = edge.PayloadSchemaType.Integer
        shard(request.collection_name).update(edge.UpdateOperation.create_field_index(request.field_name, schema))
        return done()

    def upsert(request):
        only(request, "collection_name", "wait", "points")
        refuse_unless(request.wait, "an upsert that is not waited for")
        made, batch = read(request.collection_name), []
        for point in request.points:
            vector = point.vectors.vector
            row = list(vector.dense.data or vector.data)
            if len(row) != made["size"]:
                what = f"Wrong input: Vector dimension error: expected dim: {made['size']}, got {len(row)}"
                raise Refused(grpc.StatusCode.INVALID_ARGUMENT, what)
            batch.append(edge.Point(point.id.num, row, {k: plain(v) for k, v in point.payload.items()}))
        target = shard(request.collection_name)
        target.update(edge.UpdateOperation.upsert_points(batch))
        if made["m"] > 0:
            target.optimize()
        return done()

    def delete(request):
        only(request, "collection_name", "wait", "points")
        refuse_unless(request.wait, "a deletion that is not waited for")
        refuse_unless(request.points.WhichOneof("points_selector_one_of") == "filter", "a deletion by no filter")
        chosen = condition_filter(request.points.filter)
        shard(request.collection_name).update(edge.UpdateOperation.delete_points_by_filter(chosen))
        return done()

    def get_points(request):
        only(request, "collection_name", "ids", "with_payload", "with_vectors")
        ids = [point.num for point in request.ids]
        found = shard(request.collection_name).retrieve(ids, selected(request.with_payload), False)
        result = [points.RetrievedPoint(id=common.PointId(num=p.id), payload=payload_of(p)) for p in found]
        return points.GetResponse(result=result)

    def scroll(request):
        only(request, "collection_name", "filter", "offset", "limit", "with_payload", "with_vectors")
        page = edge.ScrollRequest(
            offset=request.offset.num if request.HasField("offset") else None,
            limit=request.limit,
            filter=condition_filter(request.filter),
            with_payload=selected(request.with_payload),
            with_vector=False,
        )
        found, next_offset = shard(request.collection_name).scroll(page)
        result = [points.RetrievedPoint(id=common.PointId(num=p.id), payload=payload_of(p)) for p in found]
        if next_offset is None:
            return points.ScrollResponse(result=result)
        return points.ScrollResponse(result=result, next_page_offset=common.PointId(num=next_offset))

    def query(request):
        only(request, "collection_name", "query", "filter", "params", "limit", "with_payload", "with_vectors")
        only(request.params, "exact", "hnsw_ef")
        row = list(request.query.nearest.dense.data)
        refuse_unless(row, "a query by no vector")
        made = read(request.collection_name)
        if len(row) != made["size"]:
            what = f"Wrong input: Vector dimension error: expected dim: {made['size']}, got {len(row)}"
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, what)
        ef = request.params.hnsw_ef if request.params.HasField("hnsw_ef") else None
        asked = edge.QueryRequest(
            limit=request.limit,
            query=edge.Query.Nearest(row),
            filter=condition_filter(request.filter) if request.HasField("filter") else None,
            params=edge.SearchParams(hnsw_ef=ef, exact=request.params.exact),
            with_vector=False,
            with_payload=selected(request.with_payload),
        )
        found = shard(request.collection_name).query(asked)
        result = [points.ScoredPoint(id=common.PointId(num=p.id), score=p.score) for p in found]
        return points.QueryResponse(result=result)

    class Collections(collections_service.CollectionsServicer):
        CollectionExists, Create, Get = guarded(exists), guarded(create), guarded(get)
        Update, Delete = guarded(update), guarded(delete_collection)

    class Points(points_service.PointsServicer):
        Upsert, Delete, Get = guarded(upsert), guarded(delete), guarded(get_points)
        Scroll, Query, CreateFieldIndex = guarded(scroll), guarded(query), guarded(create_field_index)

    root.mkdir(exist_ok=True)
    # One call at a time: this is no test of how Qdrant shares.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.max_receive_message_length", -1)])
    collections_service.add_CollectionsServicer_to_server(Collections(), server)
    points_service.add_PointsServicer_to_server(Points(), server)
    port_file = root / "port"
    wanted = int(port_file.read_text()) if port_file.exists() else 0
    port = server.add_insecure_port(f"127.0.0.1:{wanted}")
    port_file.write_text(str(port))
    server.start()
    print(f"qdrant://127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


def main() -> None:
    if len(sys.argv) == 3:
        serve(Path(sys.argv[1]))
        return
    running = None
    try:
        for line in sys.stdin:
            if line.strip() == "start":
                command = [sys.executable, __file__, sys.argv[1], "serve"]
                running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                print(running.stdout.readline().strip(), flush=True)
            elif line.strip() == "kill":
                running.kill()
                running.wait()
                print("killed", flush=True)
    finally:
        if running is not None:
            running.kill()
            running.wait()


main()
