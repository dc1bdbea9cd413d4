//! Adapters on disk.

use std::collections::BTreeMap;
use std::path::Path;

use assay_model::{Adapter, AdapterError, Module};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::common::{noise, tiny};

/// Both halves of every pair are random.
fn adapter(targets: &[Module]) -> Adapter {
    let mut adapter = tiny().new_adapter(4, 8.0, targets, 1);
    let n = adapter.parameters().len();
    adapter.parameters_mut().copy_from_slice(&noise(n, 0.1, &mut 3));
    adapter
}

fn saved(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("adapter");
    adapter(&Module::ALL).save_peft(&path, "org/tiny").unwrap();
    path
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
    change(&mut value);
    fs_err::write(file, value.to_string()).unwrap();
}

fn load(dir: &Path) -> Result<Adapter, AdapterError> {
    Adapter::load_peft(dir, tiny().config())
}

#[test]
fn what_is_saved_is_loaded_again() {
    for targets in [&Module::ALL[..], &[Module::Q, Module::V], &[Module::Down]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let adapter = adapter(targets);
        adapter.save_peft(&path, "org/tiny").unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.spec(), adapter.spec());
        assert_eq!(loaded.parameters(), adapter.parameters());
        let left: Vec<_> = fs_err::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "no partial folder is left");
    }
}

#[test]
fn the_files_are_those_of_peft() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let config: Value =
        serde_json::from_slice(&fs_err::read(path.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(
        config,
        json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "org/tiny",
            "revision": null, "r": 4, "lora_alpha": 8, "lora_dropout": 0.0,
            "target_modules":
                ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            "bias": "none", "fan_in_fan_out": false, "use_rslora": false, "use_dora": false,
            "init_lora_weights": true, "modules_to_save": null, "rank_pattern": {},
            "alpha_pattern": {}, "layers_to_transform": null, "inference_mode": true,
        })
    );
    assert!(config["lora_alpha"].is_i64());
    let bytes = fs_err::read(path.join("adapter_model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.len(), 2 * 7 * 2);
    let a = tensors.tensor("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight").unwrap();
    let b = tensors.tensor("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight").unwrap();
    assert_eq!((a.shape(), b.shape()), (&[4, 48][..], &[32, 4][..]));
    assert_eq!(a.dtype(), safetensors::Dtype::F32);
    let sidecar: Value =
        serde_json::from_slice(&fs_err::read(path.join("assay.json")).unwrap()).unwrap();
    let d = tiny();
    assert_eq!(sidecar["base_hash"], d.file_hash());
    assert_eq!(sidecar["template_hash"], d.template().hash());
    assert_eq!(sidecar["tool"], "assay");
}

#[test]
fn an_adapter_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let again = adapter(&Module::ALL).save_peft(&path, "org/tiny");
    assert!(matches!(again, Err(AdapterError::Exists { .. })));
    let empty = dir.path().join("empty");
    fs_err::create_dir(&empty).unwrap();
    adapter(&Module::ALL).save_peft(&empty, "org/tiny").unwrap();
    assert!(load(&empty).is_ok());
}

#[test]
fn adapters_of_other_tools_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    fs_err::remove_file(path.join("assay.json")).unwrap();
    // What PEFT 0.21 writes, beyond our own fields.
    change(&path.join("adapter_config.json"), |c| {
        let more = json!({
            "auto_mapping": null, "peft_version": "0.21.2", "loftq_config": {}, "eva_config": null,
            "corda_config": null, "megatron_config": null, "megatron_core": "megatron.core",
            "trainable_token_indices": null, "use_qalora": false, "qalora_group_size": 16,
            "layer_replication": null, "lora_bias": false, "target_parameters": null,
            "exclude_modules": null, "layers_pattern": null, "ensure_weight_tying": false,
            "alora_invocation_tokens": null, "arrow_config": null, "use_bdlora": null,
        });
        let more = more.as_object().unwrap().clone();
        c.as_object_mut().unwrap().extend(more);
    });
    let loaded = load(&path).unwrap();
    assert_eq!((&loaded.spec().base_hash, &loaded.spec().template_hash), (&None, &None));
    assert!(tiny().check_adapter(&loaded).is_ok());

    change(&path.join("adapter_config.json"), |c| c["use_rslora"] = true.into());
    assert_eq!(load(&path).unwrap().spec().alpha, 16.0, "8 / sqrt(4) = 16 / 4");
    change(&path.join("adapter_config.json"), |c| {
        *c = json!({ "peft_type": "LORA", "target_modules": "all-linear", "r": 4 });
    });
    assert_eq!(load(&path).unwrap().spec().alpha, 8.0, "PEFT's default");
}

#[test]
fn what_is_not_plain_lora_is_refused_by_name() {
    let check = |key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(dir.path());
        change(&path.join("adapter_config.json"), |c| c[key] = value);
        match load(&path) {
            Err(AdapterError::Unsupported { setting, .. }) => assert_eq!(setting, key),
            other => panic!("{key}: {:?}", other.map(|a| a.spec().clone())),
        }
    };
    check("peft_type", "IA3".into());
    check("use_dora", true.into());
    check("bias", "lora_only".into());
    check("modules_to_save", json!(["lm_head"]));
    check("rank_pattern", json!({ "q_proj": 8 }));
    check("alpha_pattern", json!({ "q_proj": 8 }));
    check("layers_to_transform", json!([0]));
    check("init_lora_weights", "pissa".into());
    check("fan_in_fan_out", true.into());
    check("lora_bias", true.into());
    check("trainable_token_indices", json!([1]));
    check("r", 0.into());
}

/// Loads an adapter whose tensors were changed by `change`; the error as text, without the path.
fn refused(change: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    let file = path.join("adapter_model.safetensors");
    let bytes = fs_err::read(&file).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, t)| {
            (
                name.to_owned(),
                (
                    t.shape().to_vec(),
                    t.data().as_chunks::<4>().0.iter().map(|w| f32::from_le_bytes(*w)).collect(),
                ),
            )
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (shape, data))| {
        let bytes = bytemuck::cast_slice(data);
        (
            name,
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                .unwrap(),
        )
    });
    fs_err::write(&file, safetensors::serialize(views, None).unwrap()).unwrap();
    let error = load(&path).map(|a| a.spec().clone()).unwrap_err().to_string();
    error.replace(&format!("{}: ", file.display()), "")
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    assert_eq!(
        refused(|t| {
            t.remove(Q);
        }),
        format!("1 tensors are missing, e.g. {Q}")
    );
    assert_eq!(
        refused(|t| t.get_mut(Q).unwrap().0 = vec![32, 4]),
        format!("tensor {Q} is [32, 4], expected [4, 32]")
    );
    assert_eq!(
        refused(|t| t.get_mut(Q).unwrap().1[5] = f32::NAN),
        format!("tensor {Q} is not finite everywhere")
    );
    let foreign = "base_model.model.lm_head.weight";
    assert_eq!(
        refused(|t| {
            t.insert(foreign.into(), (vec![1], vec![0.0]));
        }),
        format!("tensor {foreign} is not a LoRA half of a linear module of this model")
    );
    assert!(refused(BTreeMap::clear).contains("are missing"));
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    fs_err::write(path.join("adapter_model.safetensors"), b"no").unwrap();
    assert!(matches!(load(&path), Err(AdapterError::Safetensors { .. })));
    fs_err::write(path.join("adapter_config.json"), b"{").unwrap();
    assert!(matches!(load(&path), Err(AdapterError::Json { .. })));
    assert!(matches!(load(dir.path()), Err(AdapterError::Io(_))));
}

#[test]
fn an_adapter_of_another_base_or_template_is_refused_by_the_decoder() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path());
    for key in ["base_hash", "template_hash"] {
        change(&path.join("assay.json"), |c| c[key] = "0000".into());
        let loaded = load(&path).unwrap();
        assert!(tiny().logits(&[5, 6], Some(&loaded)).is_err(), "{key}");
        change(&path.join("assay.json"), |c| c[key] = Value::Null);
    }
    assert!(tiny().logits(&[5, 6], Some(&load(&path).unwrap())).is_ok());
}
